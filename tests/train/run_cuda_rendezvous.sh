#!/usr/bin/env bash
# Ranks with CUDA devices that were started by hand, without MPI: they meet over TCP or a shared file, and
# so does NCCL's id get round.  Their run is the one that mpirun starts, bit for bit.  When one is killed,
# the other notices without a watchdog, says so and ends within seconds.
. "$(dirname "$0")/run_pair.sh"
if [ "${TMD_CUDA_DEVICES:-2}" -lt 2 ]; then # NCCL wants one for each rank
    echo "skipped: one device"
    exit 77
fi
prepare_cuda
stage_options stage2
options=("${stage[@]}" "${f32[@]}" train.global_batch=2 stage2.student_every=2)

train 2 "${options[@]}" train.iterations=4 out=mpi

export OMPI_MCA_pml=none # nobody has that one: MPI_Init fails
check_not "MPI does not start any more" "$mpirun" --oversubscribe --bind-to none -np 2 "$tools/test_comm" cpu

for way in tcp file; do
    start_pair "$way" "${options[@]}" train.iterations=4 "out=$way"
    await_pair $((120 * slowness)) 0
    check "$way: both end well, not with ${codes[*]}" test "${codes[*]}" = "0 0"
    check "$way: nobody complains" test -z "$(cat errors-*)"
    check "$way: both are ranks of it" grep -q '^environment: 2 ranks on 1 host$' log-0
    check_same_run "$way as by mpirun" mpi "$way"
done

killed() { # WAY RANK
    local run=killed-$1-$2 other=$((1 - $2))
    start_pair "$1" "${options[@]}" train.iterations=1000 train.watchdog=0 checkpoint.every=1 "out=$run"
    await_iterations "$run" 2
    kill -KILL "${ranks[$2]}"
    await_pair $((20 * slowness)) 0 # at most an iteration away from the next message
    check "$run: the other fails" test "${codes[$other]}" -ne 0
    check "$run: it says why" grep -qE "^tmd: fatal: .*(remote process exited|rank $2 on host .* is gone)" \
        "errors-$other"
    check "$run: what was saved before is whole" "$tmd" ckpt verify "$(newest_checkpoint "$run")"
}
killed tcp 0
killed file 1
passed
