#!/usr/bin/env bash
# The operations of a communicator in the memory of CUDA devices, over NCCL; and a run in which NCCL breaks.
. "$(dirname "$0")/run_lib.sh"
export TMD_CACHE_DIR=$scratch/cache TMD_EMULATED_STRICT=1

check "one process" "$tools/test_comm" cuda
for ranks in 2 4; do
    [ "$ranks" -le "${TMD_CUDA_DEVICES:-4}" ] || continue # NCCL wants a device for each rank
    check "$ranks ranks" "$mpirun" --oversubscribe --bind-to none -np "$ranks" "$tools/test_comm" cuda
    TMD_EMULATED_ORDER=eager-others check "$ranks ranks, streams in another order" \
        "$mpirun" --oversubscribe --bind-to none -np "$ranks" "$tools/test_comm" cuda
done

# ---- one rank hears from NCCL that the other is gone, which waits for it ----

# only the emulated NCCL can be made to break
if [ "${TMD_CUDA:-}" = EMULATED ]; then
    "$tools/make_dataset" clips.h5 24 3
    command_of 1 train.stage=teacher out=broken train.iterations=1000 checkpoint.every=1 \
        device.backend=cuda device.precision=f32 device.tune_gemm=false
    code=0 # in the second step
    timeout 120 "$mpirun" --oversubscribe --bind-to none -np 1 env TMD_EMULATED_NCCL_FAULT=10 \
        "${command[@]}" : -np 1 "${command[@]}" >log 2>errors || code=$?
    check "the run fails" test "$code" -ne 0
    check "and ends by itself" test "$code" -ne 124
    check "it says why" grep -q "^tmd: fatal: an operation between ranks broke off: remote process" errors
    check "and who noticed" grep -q "host $(hostname), rank 0)" errors
    check_not "nobody is left" pgrep -f "^$tmd train .* out=broken .*"
    check "what was saved before is whole" "$tmd" ckpt verify "$(newest_checkpoint broken)"
fi
passed
