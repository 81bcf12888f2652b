#!/usr/bin/env bash
# One of two ranks is killed, again and again: as it starts, at any time of the loop, and at the very
# moments at which a save begins, a shard is written, is complete, the master is written, is in its place, a
# preview is drawn.  Each time all processes end, within a minute, the newest checkpoint is whole, and the
# run goes on from it; in the end it is where one is that nobody disturbed, bit for bit.  Once with whole
# weights, once with sharded ones; and once while the teacher makes pairs.
#     run_kills.sh TMD MPIRUN TOOLS [KILLS]
. "$(dirname "$0")/run_pair.sh"
prepare

kills=${4:-$(repeats 12)}
stage_options stage2
ways=(mpi tcp file)
RANDOM=7

sleep_at_most() { # MILLISECONDS
    local milliseconds=$((RANDOM * slowness * $1 / 32767))
    sleep "$((milliseconds / 1000)).$(printf %03d $((milliseconds % 1000)))"
}

# Starts the run in `way`, kills a rank of it when `moment` says, and waits for the end.
start_and_kill() { # RUN [key=value ...]
    local victim=$((RANDOM % 2)) within pattern since
    read -r within pattern <<<"$moment"
    start_pair "$way" "${@:2}" "out=$1" resume=auto train.iterations=1000000
    if [ -n "$pattern" ]; then await_change "$1/$pattern"; fi
    sleep_at_most "$within"
    kill -KILL "${ranks[victim]}" 2>/dev/null || fail "$kill, $way: rank $victim ended on its own"
    since=$SECONDS
    await_pair 60 0
    if [ $((SECONDS - since)) -gt "$slowest" ]; then slowest=$((SECONDS - since)); fi
    n_checks=$((n_checks + 1))
}

# When to kill is in `moments`: so many milliseconds at most after other names than before match the pattern
# in the run's folder; without a pattern, after the start.
kill_again_and_again() { # NAME [key=value ...]
    local run=killed-$1 kill way moment newest="" last="" slowest=0 n_newer=0 iterations
    local options=("${stage[@]}" train.global_batch=2 train.seed=3 "${@:2}")
    mkdir -p "$run/checkpoints"
    for kill in $(seq "$kills"); do
        way=${ways[kill % ${#ways[@]}]}
        moment=${moments[kill % ${#moments[@]}]}
        start_and_kill "$run" "${options[@]}" checkpoint.every=2 preview.every=5 preview.count=1
        newest=$(newest_checkpoint "$run")
        if [ -z "$newest" ]; then continue; fi
        check "$run, $kill, $way, '$moment': the newest checkpoint is whole" "$tmd" ckpt verify "$newest"
        if [ "$newest" != "$last" ]; then n_newer=$((n_newer + 1)); fi
        last=$newest
    done
    check "$run has come on" test "$n_newer" -ge "$((kills / 4))"

    # to the end: a little further than it has come, with the folder as the kills left it
    iterations=$((10#$(basename "$newest" .h5 | tr -dc 0-9) + 5))
    train 2 "${options[@]}" "out=$run" resume=auto "train.iterations=$iterations"
    train 2 "${options[@]}" "out=calm-$1" "train.iterations=$iterations"
    check "$run, $kills times" "$tools/compare_checkpoints" "$(newest_checkpoint "calm-$1")" \
        "$(newest_checkpoint "$run")" student/param student/adam_m fake/adam_v discriminator/adam_v
    check_no_leftovers "$run"
    echo "$1: $kills kills: all ended within $slowest s, $n_newer with a newer checkpoint," \
        "$iterations iterations"
}

# as many as have no divisor in common with the ways
moments=("500" "500 checkpoints/step-*.h5" "0 checkpoints/*.partial" "0 checkpoints/step-*.h5" "0 previews/*")
kill_again_and_again whole
moments=("500" "500 checkpoints/step-*.h5" "0 checkpoints/*.shards-*" "0 checkpoints/*.shards-*/*.partial"
    "0 checkpoints/*.shards-*/*.h5" "0 checkpoints/*.partial" "0 checkpoints/step-*.h5" "0 previews/*")
kill_again_and_again sharded parallel.shard=full

stage_options kd
options=("${stage[@]}" kd.pairs=60)
kill=pairs way=tcp moment="0 pairs/*" slowest=0
start_and_kill killed-kd "${options[@]}"
train 2 "${options[@]}" out=killed-kd resume=auto train.iterations=5
train 2 "${options[@]}" out=calm-kd train.iterations=5
check_same_run "killed among pairs" calm-kd killed-kd
check_no_leftovers killed-kd
check_not "the meeting's file is gone, or was left by a kill" \
    test "$(find . -name 'meeting*' | wc -l)" -gt 2
passed
