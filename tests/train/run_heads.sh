#!/usr/bin/env bash
# Stage two with each type of discriminator: 1 and 2 ranks give the same losses up to the order of
# summation, steps of student and critics replay to the same bits, and `none` is what weight 0 is.
. "$(dirname "$0")/run_lib.sh"
prepare
stage_options stage2
stage+=(train.iterations=12)

check_replay() { # RUN
    check "$1: the step is dumped and replays" "$tmd" replay --tol 0 "$(echo "$1"/replay-*-rank0)"
}

for type in separable attention none; do
    train 1 "${stage[@]}" "discriminator.type=$type" "out=$type-1" train.dump_at=5
    train 2 "${stage[@]}" "discriminator.type=$type" "out=$type-2" train.dump_at=6
    check "$type on 2 ranks as on one" "$tools/compare_metrics" "$type-1/metrics.jsonl" \
        "$type-2/metrics.jsonl" 1e-5 1e-3
    check_replay "$type-1"
    check_replay "$type-2"
done
check_not "the types differ" "$tools/compare_metrics" separable-1/metrics.jsonl \
    attention-1/metrics.jsonl 1e-5 1e-3

train 1 "${stage[@]}" stage2.gan_weight=0 out=unweighted
check_same_run "none is the weight 0" none-1 unweighted student/param fake/param

# one type's checkpoint is not another's
checkpoint=$(newest_checkpoint separable-1)
train_expecting 2 1 "${stage[@]}" discriminator.type=attention out=other "resume=$checkpoint"
for word in "$checkpoint" heads.0. discriminator; do
    check "resuming as another type: names $word" grep -qF -- "$word" errors
done
passed
