#!/usr/bin/env bash
# The CUDA backend under the very same `tmd train`: in float32 every stage gives the CPU's losses, two
# ranks over NCCL those of one, a run goes on where it stopped, bit for bit, in bfloat16 too; what is
# wrong with a machine is said in one sentence, and a device that fails leaves no checkpoint.
. "$(dirname "$0")/run_lib.sh"
prepare_cuda

for name in teacher kd stage1 stage2; do
    stage_options "$name"
    train 1 "${stage[@]}" train.iterations=4 out="$name-cpu"
    train 1 "${stage[@]}" train.iterations=4 out="$name-f32" "${f32[@]}"
    check "$name in float32 as on the CPU" "$tools/compare_metrics" "$name-cpu/metrics.jsonl" \
        "$name-f32/metrics.jsonl" 1e-4 1e-2
done
last_launches() { # RUN
    tail -n 1 "$1/metrics.jsonl" | grep -oE '"graph_launches":[0-9]+' | cut -d: -f2
}
check "passes without gradient are graphs" test "$(last_launches stage2-f32)" -gt 4
check "on the CPU none is" test "$(last_launches stage2-cpu)" -eq 0
stage_options stage2
check "the benchmark of a step" "$tmd" bench "$small" "${stage[@]}" "${f32[@]}" --what step \
    --seconds 0.001 --side 64 --json step.json
check "tells its graphs" grep -qE '"graphs: [1-9][0-9]* kept, .*; [1-9][0-9.]* launches' step.json
if [ "${TMD_CUDA_DEVICES:-2}" -gt 1 ]; then # NCCL wants a device for each rank
    stage_options stage2
    train 2 "${stage[@]}" train.iterations=4 out=two-ranks "${f32[@]}"
    check "two ranks as one" "$tools/compare_metrics" stage2-f32/metrics.jsonl two-ranks/metrics.jsonl \
        1e-5 1e-3
    TMD_EMULATED_ORDER=eager-others train 2 "${stage[@]}" train.iterations=4 out=other-order "${f32[@]}"
    check_same_run "streams in another order" two-ranks other-order
fi

for name in stage1 stage2; do
    stage_options "$name"
    train 1 "${stage[@]}" train.iterations=4 out="$name-whole" "${bf16[@]}" checkpoint.every=2
    train 1 "${stage[@]}" train.iterations=2 out="$name-halves" "${bf16[@]}"
    check "$name saved while it goes on as at its end" "$tools/compare_checkpoints" \
        {"$name-whole","$name-halves"}/checkpoints/step-00000002.h5
    train 1 "${stage[@]}" train.iterations=4 out="$name-halves" "${bf16[@]}" resume=auto
    check_same_run "$name in bfloat16 resumed" "$name-whole" "$name-halves"
    check "$name in bfloat16 near float32" "$tools/compare_metrics" "$name-cpu/metrics.jsonl" \
        "$name-whole/metrics.jsonl" 0.2 1.0
done

refused() { # WORDS NAME=VALUE [key=value ...]
    (export "$2"; train_expecting 2 1 "${stage[@]}" out=refused "${bf16[@]}" "${@:3}")
    check "one sentence with '$1'" grep -q "$1" errors
    check "one line of error" test "$(wc -l <errors)" -eq 1
    check_not "no checkpoint of a refused run" ls refused/checkpoints/*.h5
}
# only an emulated device can be made to fail
if [ "${TMD_CUDA:-}" = EMULATED ]; then
    refused "no CUDA device" TMD_EMULATED_DEVICES=0
    refused "driver" TMD_EMULATED_DRIVER=11080
    refused "architecture" TMD_EMULATED_ARCHITECTURE=70
    refused "workspace" TMD_EMULATED_BYTES=300000000
    refused "does not fit" TMD_EMULATED_BYTES=538000000

    TMD_EMULATED_PINNED_BYTES=8400000 \
        train 1 "${stage[@]}" train.iterations=4 out=unpinned "${bf16[@]}" checkpoint.every=2
    check "that nothing is pinned is said once" test "$(grep -c 'does not pin' log)" -eq 1
    check_same_run "without pinned memory" stage2-whole unpinned

    code=0
    TMD_EMULATED_FAULT=20000 "$tmd" train "$small" data.files=[clips.h5] "${stage[@]}" out=dead \
        "${bf16[@]}" checkpoint.every=1 >log 2>errors || code=$?
    check "a device error ends the run" test "$code" -ne 0
    check "the message names the device" grep -q "device 0" errors
    last=$(newest_checkpoint dead)
    check "what was saved before it is whole" "$tmd" ckpt verify "$last"
fi
passed
