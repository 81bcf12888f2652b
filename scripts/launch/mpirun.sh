#!/usr/bin/env bash
# Ranks by Open MPI's mpirun, each on cores of its own:
#
#   scripts/launch/mpirun.sh --hosts FILE build/tmd train CONFIG resume=auto
#   scripts/launch/mpirun.sh build/tmd train CONFIG     inside a Slurm job: on its tasks
#
# FILE has a line `NAME slots=N` for each host, with N as many as it has GPUs: one rank for each.
# The hosts must let each other in by ssh without a password, and see program, data and `out` by the
# same paths.  Each rank gets $OMP_NUM_THREADS cores (1 if unset).  SIGUSR1 to mpirun has the run
# write a checkpoint and end with exit code 75; the same command goes on from there.
set -euo pipefail

fail() {
  echo "mpirun.sh: $*" >&2
  exit 2
}

hosts=()
if [ "${1:-}" = --hosts ]; then
  [ -r "${2:-}" ] || fail "--hosts: expected a file that can be read, got '${2:-}'"
  hosts=(--hostfile "$2")
  shift 2
elif [ -z "${SLURM_JOB_ID:-}" ]; then
  fail "expected --hosts FILE, or to be called inside a Slurm job"
fi
[ $# -gt 0 ] || fail "expected a command"

# Other hosts know of the environment what they are told.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
told=()
for name in $(compgen -e); do
  case $name in
    PATH | LD_LIBRARY_PATH | OMP_* | NCCL_* | UCX_* | CUDA_* | TMD_*) told+=(-x "$name") ;;
  esac
done
if [ "$(id -u)" -eq 0 ]; then # in containers one is root, which Open MPI wants confirmed
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec mpirun "${hosts[@]}" --map-by "slot:PE=$OMP_NUM_THREADS" --bind-to core "${told[@]}" "$@"
