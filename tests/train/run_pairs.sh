#!/usr/bin/env bash
# The KD warm-up on ranks that hold its teacher and student in shares, replicated, and beside split tokens:
# losses and gradient norms of one rank over 50 iterations, 1e-5 relative.  Ranks make the teacher's pairs
# in unequal numbers of batches, and help each other; where one fails all end.
. "$(dirname "$0")/run_lib.sh"
prepare
stage_options kd
options=("${stage[@]}" "train.iterations=$(repeats 50)" ema.decay=0.9 optimizer.grad_clip=0.1
    train.global_batch=8 kd.pairs=29) # one batch would go over the end of the data

train 1 "${options[@]}" out=alone
compare_divided() { # NAME RANKS [key=value ...]
    train "$2" "${options[@]}" "out=$1" "${@:3}"
    check "$1 as alone" "$tools/compare_metrics" alone/metrics.jsonl "$1/metrics.jsonl" 1e-5 1e-3
}
for shard in optimizer full; do
    compare_divided "$shard-2" 2 "parallel.shard=$shard"
    compare_divided "$shard-4" 4 "parallel.shard=$shard"
    compare_divided "$shard-2x2" 4 "parallel.shard=$shard" parallel.replicas=2
    compare_divided "$shard-split" 4 "parallel.shard=$shard" parallel.sequence=2
done
compare_divided full-8 8 parallel.shard=full parallel.replicas=2 parallel.sequence=2

# a part that is lost is made again, with the help of the rank whose part is there
options+=(parallel.shard=full out=full-2)
lost=$(find full-2/pairs -name '*-14-15.h5')
mv full-2/metrics.jsonl before.jsonl
rm -r "$lost" full-2/checkpoints
train 2 "${options[@]}"
check "the second rank's pairs are there again" test -s "$lost"
check "and the same" "$tools/compare_metrics" before.jsonl full-2/metrics.jsonl 0 0

# a rank that cannot write its pairs ends the one that would wait for its help
rm -r "$lost" full-2/checkpoints
mkdir "$lost.partial"
train_expecting 2 2 "${options[@]}"
check "one message" test "$(grep -c '^tmd: ' errors)" -eq 1
check "that names the file" grep -q "^tmd: .*$lost.partial" errors
passed
