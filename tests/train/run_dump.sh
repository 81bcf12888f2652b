#!/usr/bin/env bash
# The step that a run dumps, asked for by iteration or because it was not finite, replays to the same bits.
. "$(dirname "$0")/run_lib.sh"
prepare

for name in teacher kd stage1 stage2; do
    stage_options "$name"
    for at in 5 6; do # stage two: of the student, and of the critics
        run=$name-$at
        train 2 "${stage[@]}" "out=$run" train.iterations=8 "train.dump_at=$at"
        case=$(find "$run" -maxdepth 1 -name "replay-*$at-rank0")
        check "$run: is dumped" test -n "$case"
        check "$run: replays" "$tmd" replay --tol 0 "$case"
    done
done

train_expecting 3 1 train.stage=teacher optimizer.lr=1e30 train.max_skipped=3 out=diverged
cases=$(find diverged -maxdepth 1 -name 'replay-*')
check "the first step that is not finite is dumped, and no other" test "$(wc -l <<<"$cases")" -eq 1
code=0
"$tmd" replay "$cases" >log || code=$?
check "it is not finite in the replay either" grep -q nan log
check "which no tolerance admits" test "$code" -eq 1
passed
