#!/usr/bin/env bash
# Weights in shares and split tokens on CUDA devices, over NCCL: in float32 the losses of one CPU rank; in
# bfloat16 what weights that are whole on every device give, whatever the order of streams.  A run goes on
# where it stopped, bit for bit, and from its shards on another number of devices.  What is sent and
# allocated is what is planned.
. "$(dirname "$0")/run_lib.sh"
prepare_cuda
n_devices=${TMD_CUDA_DEVICES:-4} # NCCL wants one for each rank

check "memory and messages" "$mpirun" --oversubscribe --bind-to none -np $((n_devices > 1 ? 2 : 1)) \
    "$tools/test_shard" cuda bf16

# ---- float32: as on the CPU ----

compare() { # REFERENCE RUN
    check "$2 as $1" "$tools/compare_metrics" "$1/metrics.jsonl" "$2/metrics.jsonl" 1e-5 1e-3
}

compare_divided() { # NAME RANKS [key=value ...]
    [ "$2" -le "$n_devices" ] || return 0
    train "$2" "${stage[@]}" "${common[@]}" "${clipped[@]}" "${f32[@]}" "out=$name-$1" "${@:3}"
    compare "$name-cpu" "$name-$1"
}

common=(train.iterations=3 stage2.student_every=2 ema.decay=0.9)
clipped=(optimizer.grad_clip=0.1 train.global_batch=4 train.micro_batch=1) # in two passes
for name in stage1 stage2; do
    stage_options "$name"
    train 1 "${stage[@]}" "${common[@]}" "${clipped[@]}" "out=$name-cpu"
    compare_divided optimizer 2 parallel.shard=optimizer
    compare_divided full 2 parallel.shard=full
done
name=stage1
stage_options "$name"
compare_divided sequence 2 parallel.sequence=2
name=stage2
stage_options "$name"
compare_divided all 4 parallel.shard=full parallel.replicas=2 parallel.sequence=2

# ---- bfloat16: as with whole weights ----

[ "$n_devices" -gt 1 ] || { passed; exit; }
# one pass: what is sent whole and in shares are the same sums of two
common+=(train.global_batch=2 preview.every=3 preview.count=1)
sheet=previews/step-00000003.png
for shard in none optimizer full; do
    train 2 "${stage[@]}" "${common[@]}" "${bf16[@]}" "parallel.shard=$shard" "out=$shard"
done
check_same_run "optimizer as none" none optimizer
check "its average draws the same" cmp "none/$sheet" "optimizer/$sheet"
compare none full # a unit that backward comes to more than once is summed each time
check "full draws" test -s "full/$sheet"
for shard in optimizer full; do
    TMD_EMULATED_ORDER=eager-others train 2 "${stage[@]}" "${common[@]}" "${bf16[@]}" \
        "parallel.shard=$shard" "out=$shard-other"
    check_same_run "$shard, streams in another order" "$shard" "$shard-other"
done

# ---- from shards ----

train 2 "${stage[@]}" "${common[@]}" "${bf16[@]}" parallel.shard=full out=halves train.iterations=2
check "what was saved is whole" "$tmd" ckpt verify "$(newest_checkpoint halves)"
cp -r halves alone
train 2 "${stage[@]}" "${common[@]}" "${bf16[@]}" parallel.shard=full out=halves resume=auto
check_same_run "resumed" full halves
train 1 "${stage[@]}" "${common[@]}" "${bf16[@]}" out=alone resume=auto
compare full alone
passed
