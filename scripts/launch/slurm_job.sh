#!/usr/bin/env bash
# What slurm-*.sbatch have in common: starts `tmd train` on a rank for each of the job's tasks.
#
# SIGUSR1 says that the job's time is over: the run writes a checkpoint, and the job goes into the
# queue again.  SIGTERM says that somebody cancelled the job, or that another is preferred: the run
# writes a checkpoint, and Slurm knows whether the job is to come back.  (A preemption reaches
# mpirun's ranks only where slurm.conf has PreemptParameters=send_user_signal, srun's in any case.)
#
#   TMD_LAUNCHER   srun (over PMIx, the default) or mpirun (Open MPI's own)
#   TMD            the program, by default build/tmd; a container is words before it:
#                  "apptainer exec --nv tmd.sif tmd"
#   TMD_SETUP      a file that is sourced first: this cluster's modules, and variables of NCCL
#                  and UCX where they do not find the right network by themselves
set -euo pipefail
# shellcheck source=/dev/null
[ -z "${TMD_SETUP:-}" ] || . "$TMD_SETUP"
read -ra program <<<"${TMD:-build/tmd}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

case ${TMD_LAUNCHER:-srun} in
  srun)
    # Neighbouring ranks on neighbouring cores, as GPUs are numbered: rank 0 is near GPU 0.  All
    # GPUs stay visible to each rank, which takes its own: NCCL's direct copies between them need
    # that.  A rank that fails ends the others, which would wait for it.
    launcher=(srun --mpi=pmix --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --cpu-bind=cores
      --distribution=block:block --gpu-bind=none --kill-on-bad-exit=1)
    ;;
  mpirun) launcher=(scripts/launch/mpirun.sh) ;;
  *)
    echo "slurm_job: TMD_LAUNCHER: expected srun or mpirun, got '$TMD_LAUNCHER'" >&2
    exit 2
    ;;
esac

# Both launchers pass SIGUSR1 on to every rank; at SIGTERM mpirun would end them without a word.
time_over=no
signalled=yes
trap 'signalled=yes; time_over=yes; kill -USR1 "$ranks" 2>/dev/null || true' USR1
trap 'signalled=yes; kill -USR1 "$ranks" 2>/dev/null || true' TERM
"${launcher[@]}" "${program[@]}" train "$@" resume=auto &
ranks=$!
while [ "$signalled" = yes ]; do # a signal ends `wait`, and not the ranks
  signalled=no
  code=0
  wait "$ranks" || code=$?
done

# 75: a checkpoint was written and there is more to do
if [ "$code" -eq 75 ] && [ "$time_over" = yes ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
