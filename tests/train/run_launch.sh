#!/usr/bin/env bash
# Jobs on a cluster, without one: the scripts of scripts/launch with stand-ins for Slurm's commands,
# which start two ranks here.  A signal to the batch script ends in a checkpoint, and SIGUSR1 in the
# queue; the job that comes back ends in the same bits as one that nobody disturbed.  And what a run
# says of its environment is so.
. "$(dirname "$0")/run_lib.sh"
root=${small%/tests/*}
ln -s "$root/scripts" scripts # jobs are submitted from the root of a tree
mkdir build bin
ln -s "$tmd" build/tmd
prepare

# ---- stand-ins: each writes down how it was called, into FILE.called

stand_in() { # NAME: its text is stdin
    {
        printf '#!/usr/bin/env bash\nprintf "%%s\\n" "$*" >>%q\n' "$scratch/$1.called"
        cat
    } >"bin/$1"
    chmod +x "bin/$1"
}

# both launchers: whatever hosts and cores are asked for, two ranks here
skip_options='while [[ $1 == -* ]]; do
    case $1 in -x | --map-by | --bind-to | --hostfile) shift 2 ;; *) shift ;; esac
done'
for launcher in srun mpirun; do
    stand_in "$launcher" <<STAND_IN
$skip_options
exec "$mpirun" --oversubscribe --bind-to none -np 2 "\$@"
STAND_IN
done
stand_in scontrol </dev/null
PATH=$scratch/bin:$PATH
unset "${!SLURM_@}" # of a job in which this test may run

# Runs SCRIPT as Slurm does: a copy of it, at the root of the tree, again when it asks for it.
slurm_job() { # SCRIPT ARGUMENT...
    cp "scripts/launch/$1" spooled
    SLURM_JOB_ID=17 SLURM_CPUS_PER_TASK=${cores:-1} exec bash spooled "${@:2}" >>log 2>>errors
}

# Signals arrive at the batch script alone, once the run is under way.
disturb() { # SIGNAL RUN
    local deadline=$((SECONDS + 120))
    until [ -s "$2/metrics.jsonl" ] && [ "$(wc -l <"$2/metrics.jsonl")" -ge 10 ]; do
        kill -0 "$pid" 2>/dev/null || fail "$2 ended before it was disturbed"
        [ "$SECONDS" -lt "$deadline" ] || fail "$2 does not come on"
        sleep 0.02
    done
    kill "-$1" "$pid"
}

stage_options stage1
options=(train.log_every=1000 train.global_batch=4 "train.iterations=$(repeats 150)" "${stage[@]}")
train 2 "${options[@]}" out=undisturbed

job_goes_on() { # SIGNAL LAUNCHER SCRIPT
    local run=$1-$2-$3 code=0
    rm -f ./*.called
    : >scontrol.called
    export TMD_LAUNCHER=$2
    slurm_job "$3" "$small" 'data.files=[clips.h5]' "${options[@]}" "out=$run" &
    pid=$!
    disturb "$1" "$run"
    wait "$pid" || code=$?
    check "$run: the job ends with 75, not $code" test "$code" -eq 75
    local queued=""
    if [ "$1" = USR1 ]; then queued="requeue 17"; fi
    check "$run: is queued as '$queued'" test "$(cat scontrol.called)" = "$queued"
    check "$run: stopped early" test "$(wc -l <"$run/metrics.jsonl")" -lt "$(repeats 150)"
    (slurm_job "$3" "$small" 'data.files=[clips.h5]' "${options[@]}" "out=$run") ||
        fail "$run: exit code $? of the second part"
    check "$run: is queued no more" test "$(cat scontrol.called)" = "$queued"
    check_same_run "$run went on" undisturbed "$run"
}
job_goes_on USR1 srun slurm-one-node.sbatch
check "srun is asked for PMIx" grep -q -- '--mpi=pmix' srun.called
check "srun is told of the cores" grep -q -- '--cpus-per-task=1 ' srun.called
job_goes_on TERM srun slurm-many-nodes.sbatch
job_goes_on USR1 mpirun slurm-many-nodes.sbatch
job_goes_on TERM mpirun slurm-one-node.sbatch
check_not "mpirun goes without srun" test -e srun.called

# ---- jobs that must not come back

job_fails() { # DESCRIPTION CODE ARGUMENT...
    local code=0
    rm -f ./*.called errors
    (slurm_job slurm-one-node.sbatch "${@:3}") || code=$?
    check "$1: exit code $2, not $code" test "$code" -eq "$2"
    check_not "$1: is not queued again" test -e scontrol.called
}
TMD_LAUNCHER=srun
job_fails "a mistake" 2 "$small" train.stagee=teacher
TMD_LAUNCHER=rsh job_fails "another launcher" 2 "$small"
check "names it" grep -q "expected srun or mpirun, got 'rsh'" errors

# its time is over, but it has no checkpoint to go on from
stand_in diverges <<'STAND_IN'
trap 'exit 3' USR1
touch "running.$OMPI_COMM_WORLD_RANK"
while true; do sleep 0.05; done
STAND_IN
TMD=diverges slurm_job slurm-one-node.sbatch "$small" &
pid=$!
until [ -e running.0 ] && [ -e running.1 ]; do # a rank that is not ready dies of the signal
    kill -0 "$pid" 2>/dev/null || fail "it did not start"
    sleep 0.02
done
kill -USR1 "$pid"
code=0
wait "$pid" || code=$?
check "a run that diverged: exit code 3, not $code" test "$code" -eq 3
check_not "a run that diverged is not queued again" test -e scontrol.called

# ---- settings of the cluster, threads, another program

echo 'export NCCL_SOCKET_IFNAME=ib0 && unset OMP_NUM_THREADS' >setup
rm -f ./*.called
(cores=3 TMD_SETUP=setup TMD="env TMD_IN_CONTAINER=1 $tmd" TMD_LAUNCHER=mpirun \
    slurm_job slurm-one-node.sbatch "$small" 'data.files=[clips.h5]' \
    out=settings train.iterations=1) || fail "exit code $?"
check "this cluster's variables reach all hosts" grep -q -- '-x NCCL_SOCKET_IFNAME' mpirun.called
check "threads as the job's cores" grep -q -- '-x OMP_NUM_THREADS' mpirun.called
check "a core for each thread" grep -q -- '--map-by slot:PE=3 ' mpirun.called
check "a thread for each core" test "$(grep -c '"threads": 3,' settings/environment.json)" -eq 2
check "words before the program" grep -q -- " env TMD_IN_CONTAINER=1 $tmd train" mpirun.called

# ---- a file of hosts, and nobody's stand-in

rm bin/mpirun
ln -s "$mpirun" bin/mpirun
echo 'localhost slots=1' >hosts
code=0
scripts/launch/mpirun.sh --hosts hosts "$tmd" train "$small" 'data.files=[clips.h5]' out=one-rank \
    train.iterations=2 >log 2>errors || code=$?
check "a rank on this host ends well, not with $code" test "$code" -eq 0
check "it is a rank, on the core that it is bound to" \
    grep -q '"processors": 1,' one-rank/environment.json
for arguments in "build/tmd" "--hosts" "--hosts none build/tmd" "--hosts hosts"; do
    # shellcheck disable=SC2086 # words
    check_not "'$arguments' is refused" scripts/launch/mpirun.sh $arguments
done

# ---- what the run says of its environment

train 2 "${options[@]}" ema.decay=0.9 train.iterations=20 out=environment
check "it is told once" test "$(grep -c '^environment: 2 ranks on 1 host$' log)" -eq 1
check "with the disk" grep -q '^  disk  .* 4 must fit$' log
planned=$(sed -n 's/.*"bytes_each": \([0-9]*\).*/\1/p' environment/environment.json)
real=$(stat -c %s "$(newest_checkpoint environment)")
check "a checkpoint takes $real bytes, by the plan $planned" \
    test "$((10 * real))" -gt "$((7 * planned))" -a "$((10 * real))" -lt "$((13 * planned))"
train 2 "${options[@]}" ema.decay=0.9 train.iterations=21 resume=auto out=environment
check "what is there has fitted" grep -q '"still_to_fit": 3' environment/environment.json

# a run that is refused leaves no mark on another's folder
cp environment/environment.json before.json
train_expecting 2 1 "${options[@]}" out=environment
check "the file is as it was" cmp -s before.json environment/environment.json
passed
