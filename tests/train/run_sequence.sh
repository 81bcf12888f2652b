#!/usr/bin/env bash
# Tokens split over ranks (parallel.sequence) give the losses of one rank, 1e-5 relative, over 50
# iterations of every stage; so they do together with a split of the batch, and where the tokens do
# not divide evenly.
. "$(dirname "$0")/run_lib.sh"
prepare
iterations=train.iterations=$(repeats 50)

step_bytes() { # of the last run, in tenths of a megabyte
    sed -n 's/.* step \([0-9]*\)\.\([0-9]\) MB.*/\1\2/p' log
}

compare() { # RUN OTHER
    check "$2 as $1" "$tools/compare_metrics" "$1/metrics.jsonl" "$2/metrics.jsonl" 1e-5 1e-3
}

for name in teacher kd stage1 stage2; do
    stage_options "$name"
    train 1 "${stage[@]}" "$iterations" "out=$name-1"
    alone=$(step_bytes)
    train 2 "${stage[@]}" "$iterations" parallel.sequence=2 "out=$name-2"
    check "a part of $name needs less memory" test "$(step_bytes)" -lt "$alone"
    compare "$name-1" "$name-2"
done
for name in stage1 stage2; do
    stage_options "$name"
    train 4 "${stage[@]}" "$iterations" parallel.sequence=2 "out=$name-4"
    compare "$name-1" "$name-4"
done

# 64 tokens over three ranks
for name in stage1 stage2; do
    stage_options "$name"
    stage+=(train.iterations=12 model.num_heads=6)
    train 1 "${stage[@]}" "out=uneven-$name-1"
    for ranks in 3 6; do
        train "$ranks" "${stage[@]}" parallel.sequence=3 "out=uneven-$name-$ranks"
        compare "uneven-$name-1" "uneven-$name-$ranks"
    done
done

# a part computes its blocks again as one rank does, exchanges included
stage_options stage2
for policy in none keep_attention full; do
    train 2 "${stage[@]}" train.iterations=7 parallel.sequence=2 "train.recompute=$policy" \
        "out=again-$policy"
done
for policy in keep_attention full; do
    check_same_run "stage2 with $policy" again-none "again-$policy" student/param fake/param
done

# one rank alone samples the preview, and goes on where several stopped; what they dumped, it replays
stage_options stage1
train 1 "${stage[@]}" train.iterations=8 preview.every=4 out=whole
train 2 "${stage[@]}" train.iterations=4 preview.every=4 parallel.sequence=2 train.dump_at=2 out=parts
check "the step of two ranks replays" "$tmd" replay --tol 1e-4 parts/replay-00000002-rank0
train 1 "${stage[@]}" train.iterations=8 preview.every=4 out=parts resume=auto
compare whole parts
check "the preview is there" test -s parts/previews/step-00000004.png

train_expecting 2 1 train.stage=teacher out=bad parallel.sequence=3
for word in parallel.sequence model.num_heads; do
    check "a sequence that does not divide the heads: names $word" grep -qF "$word is" errors
done
train_expecting 2 3 train.stage=teacher out=bad parallel.sequence=2
check "ranks left over: says so" grep -q "parallel.sequence is 2.* 3" errors
passed
