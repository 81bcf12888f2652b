#!/usr/bin/env bash
# One of two ranks is killed at a random moment, again and again: every other time while it starts, else
# while it reads, computes, waits, saves, draws a preview.  Each time all processes end, within a minute, the newest checkpoint is whole, and
# the run goes on from it; in the end it is where one is that nobody disturbed, bit for bit.
#     run_kills.sh TMD MPIRUN TOOLS [KILLS]
. "$(dirname "$0")/run_pair.sh"
prepare

kills=${4:-$(repeats 10)}
stage_options stage2
options=("${stage[@]}" train.global_batch=2 train.seed=3)
saving=("${options[@]}" out=killed checkpoint.every=2 preview.every=5 preview.count=1 resume=auto
    train.iterations=1000000)
ways=(mpi tcp file)
slowest=0 n_newer=0 last=""
RANDOM=7

# Until the run has come further than the checkpoint LAST.
await_checkpoint() { # LAST
    local deadline=$((SECONDS + 120))
    while [ "$(newest_checkpoint killed)" = "$1" ]; do
        [ "$(n_alive "${jobs_of_pair[@]}")" -gt 0 ] || fail "$kill, $way: ended on its own"
        [ "$SECONDS" -lt "$deadline" ] || fail "$kill, $way: does not come on"
        sleep 0.01
    done
}

mkdir -p killed/checkpoints
for kill in $(seq "$kills"); do
    way=${ways[kill % 3]}
    start_pair "$way" "${saving[@]}"
    if [ $((kill % 2)) -eq 0 ]; then await_checkpoint "$last"; fi
    milliseconds=$((slowness * (RANDOM % 500)))
    sleep "$((milliseconds / 1000)).$(printf %03d $((milliseconds % 1000)))"
    victim=$((RANDOM % 2))
    kill -KILL "${ranks[victim]}" 2>/dev/null || fail "$kill, $way: rank $victim ended on its own"
    since=$SECONDS
    await_pair 60 0
    n_checks=$((n_checks + 1))
    if [ $((SECONDS - since)) -gt "$slowest" ]; then slowest=$((SECONDS - since)); fi
    newest=$(newest_checkpoint killed)
    if [ -n "$newest" ]; then
        check "$kill, $way: the newest checkpoint is whole" "$tmd" ckpt verify "$newest" >>verified
        if [ "$newest" != "$last" ]; then n_newer=$((n_newer + 1)); fi
        last=$newest
    fi
done
check "the run has come on" test "$n_newer" -ge "$((kills / 2))"

# to the end: a little further than it has come, with the folder as the kills left it
iterations=$((10#$(basename "$newest" .h5 | tr -dc 0-9) + 5))
train 2 "${options[@]}" out=killed resume=auto "train.iterations=$iterations"
train 2 "${options[@]}" out=calm "train.iterations=$iterations"
check "killed $kills times" "$tools/compare_checkpoints" "$(newest_checkpoint calm)" \
    "$(newest_checkpoint killed)" student/param student/adam_m fake/adam_v discriminator/adam_v
check "nothing half-written is left" test -z "$(find killed -name '*partial*' -o -name '*.tmp*')"
check_not "the meeting's file is gone, or was left by a kill" test "$(find . -name 'meeting*' | wc -l)" -gt 2
echo "$kills kills: all ended within $slowest s, $n_newer with a newer checkpoint, $iterations iterations"
passed
