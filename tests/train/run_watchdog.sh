#!/usr/bin/env bash
# A rank that stands still ends the job: the watchdog names it and its phase within the limit, whichever
# rank it is and however the ranks were started.  A run that moves is left alone.
. "$(dirname "$0")/run_pair.sh"
prepare
stage_options stage2
options=("${stage[@]}" train.global_batch=2)
limit=$((2 * slowness))

stopped() { # WAY RANK
    local run=stopped-$1-$2 since host
    host=$(uname -n)
    start_pair "$1" "${options[@]}" "out=$run" train.iterations=1000000 "train.watchdog=$limit"
    await_iterations "$run" 10
    since=$SECONDS
    kill -STOP "${ranks[$2]}"
    # mpirun takes a stopped rank away; else it ends as soon as it goes on
    await_pair $((limit + 20)) "$([ "$1" = mpi ] && echo 0 || echo 1)"
    check "$run: not before the limit" test $((SECONDS - since)) -ge "$((limit - 1))"
    check "$run: ends with 4, not ${codes[*]}" test "${codes[0]}" -eq 4
    check "$run: is told once" test "$(cat errors* | grep -c '^tmd: watchdog: ')" -eq 1
    check "$run: the rank, its host and phase are named" grep -qE \
        "watchdog: rank $2 \($host\) has not answered for [0-9]+ s; it was in phase '[a-z]+'" errors*
    kill -CONT "${ranks[$2]}" 2>/dev/null || true
    await_pair 20 0
}

for rank in 0 1; do
    stopped mpi "$rank"
    stopped tcp "$rank"
done

# one that takes its time, and one that is stopped as a whole for longer than the limit
start_pair tcp "${options[@]}" out=paused train.iterations="$(repeats 400)" "train.watchdog=$limit"
await_iterations paused 10
kill -STOP "${ranks[@]}"
sleep "$((2 * limit))"
kill -CONT "${ranks[@]}"
await_pair 300 0
check "a pause of all is no alarm: ${codes[*]}" test "${codes[*]}" = "0 0"
check "nobody says anything" test -z "$(cat errors-*)"
train 2 "${options[@]}" out=calm train.iterations="$(repeats 400)" train.watchdog=0
check_same_run "it went on as if nothing had been" calm paused
passed
