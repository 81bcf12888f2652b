#!/usr/bin/env bash
# Weights in shares (parallel.shard optimizer or full), replicated, and beside split tokens, give the
# losses and gradient norms of one rank over 50 iterations, 1e-5 relative; with clipping, averages and
# accumulation.  (The KD warm-up: run_pairs.sh.)  What is sent and allocated is what is planned.  A
# checkpoint of any number of ranks and any way of sharding goes on on any other.
. "$(dirname "$0")/run_lib.sh"
prepare
iterations=train.iterations=$(repeats 50)
common=(ema.decay=0.9 optimizer.grad_clip=0.1 train.global_batch=8)

mpi() { # RANKS COMMAND...
    "$mpirun" --oversubscribe --bind-to none -np "$@"
}

for ranks in 1 2 3 4; do
    check "memory and messages of $ranks ranks" mpi "$ranks" "$tools/test_shard"
done

compare() { # REFERENCE RUN
    check "$2 as $1" "$tools/compare_metrics" "$1/metrics.jsonl" "$2/metrics.jsonl" 1e-5 1e-3
}

compare_sharded() { # NAME RANKS [key=value ...]
    train "$2" "${stage[@]}" "${common[@]}" "$iterations" "out=$name-$1" "${@:3}"
    compare "$name-1" "$name-$1"
}

for name in stage1 stage2; do
    stage_options "$name"
    train 1 "${stage[@]}" "${common[@]}" "$iterations" "out=$name-1"
    for shard in optimizer full; do
        compare_sharded "$shard-2" 2 "parallel.shard=$shard"
        compare_sharded "$shard-4" 4 "parallel.shard=$shard"
        compare_sharded "$shard-2x2" 4 "parallel.shard=$shard" parallel.replicas=2
        compare_sharded "$shard-split" 4 "parallel.shard=$shard" parallel.sequence=2
    done
    compare_sharded full-8 8 parallel.shard=full parallel.replicas=2 parallel.sequence=2
done

# passes that ranks make together: recomputation, previews of the average, dumps
stage_options stage2
for shard in none full; do
    train 2 "${stage[@]}" "${common[@]}" train.iterations=6 train.recompute=keep_attention \
        preview.every=3 train.dump_at=5 "parallel.shard=$shard" "out=helped-$shard"
    check "the step of shard=$shard replays" "$tmd" replay --tol 1e-4 \
        "helped-$shard/replay-00000005-rank0"
    check "shard=$shard draws" test -s "helped-$shard/previews/step-00000006.png"
done
compare helped-none helped-full

# from ranks to other ranks: the same losses, and what a critic's step leaves alone the same bits
stage_options stage2
shardings=("1 none" "2 optimizer" "3 full" "4 full" "8 optimizer")
common=(ema.decay=0.9 train.global_batch=24 train.micro_batch=24)
train 1 "${stage[@]}" "${common[@]}" train.iterations=3 out=straight
for from in "${shardings[@]}"; do
    read -r ranks shard <<<"$from"
    start=from-$ranks-$shard
    train "$ranks" "${stage[@]}" "${common[@]}" train.iterations=2 "parallel.shard=$shard" "out=$start"
    check "$start verifies" "$tmd" ckpt verify "$start/checkpoints/step-00000002.h5"
    for to in "${shardings[@]}"; do
        read -r ranks shard <<<"$to"
        rm -rf moved
        cp -r "$start" moved
        train "$ranks" "${stage[@]}" "${common[@]}" train.iterations=3 "parallel.shard=$shard" out=moved \
            resume=auto
        compare straight moved
        check "$start goes on as $to" "$tools/compare_checkpoints" --only \
            moved/checkpoints/step-0000000[23].h5 student/param student/adam_m student/adam_v student/ema
    done
done
check_not "another run has other weights" "$tools/compare_checkpoints" --only \
    moved/checkpoints/step-00000002.h5 helped-full/checkpoints/step-00000006.h5 student/param
check "a sharded student is exported" "$tmd" export from-4-full/checkpoints/step-00000002.h5 \
    --role student --out exported
check "and is there" test -s exported/config.json

train_expecting 2 4 train.stage=teacher out=bad parallel.shard=full train.global_batch=6
check "uneven passes: says so" grep -q "train.global_batch is 6, which 4 ranks must divide evenly" errors
train_expecting 2 4 train.stage=teacher out=bad parallel.shard=full parallel.replicas=3
check "uneven replicas: says so" grep -q "parallel.replicas is 3.* 4" errors
passed
