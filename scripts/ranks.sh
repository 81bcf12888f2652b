#!/usr/bin/env bash
# Runs a command on N ranks of this machine:  scripts/ranks.sh 2 build/tmd train CONFIG ...
# The processors are shared out evenly; more ranks than processors are allowed.
set -euo pipefail
n_ranks=$1
shift
threads=$(($(nproc) / n_ranks))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
if [ "$(id -u)" -eq 0 ]; then # in containers one is root, which Open MPI wants confirmed
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec mpirun -np "$n_ranks" --bind-to none --oversubscribe "$@"
