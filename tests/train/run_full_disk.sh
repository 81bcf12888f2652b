#!/usr/bin/env bash
# A disk that is full in the middle of a save, whether the shards find no room or only the file that
# makes them a checkpoint: all ranks end with one message, the checkpoint before stays, the room is given
# back, and with more of it the run goes on.
#     run_full_disk.sh TMD MPIRUN TOOLS
# The disk is one in memory, which only a process with mounts of its own may bring along: without them it is
# skipped (exit code 77).
if [ "${TMD_OWN_MOUNTS:-0}" -eq 0 ]; then
    if ! unshare --mount --map-root-user mount -t tmpfs tmpfs /mnt 2>/dev/null; then
        echo "skipped: no disk can be mounted here"
        exit 77
    fi
    TMD_OWN_MOUNTS=1 exec unshare --mount --map-root-user "$0" "$@"
fi
. "$(dirname "$0")/run_lib.sh"
trap 'umount -l */checkpoints 2>/dev/null || true; finish' EXIT
prepare
stage_options stage2

# NAME SHARD SIZE: room for the first save and no more than a part of the second
full_disk() {
    local run=$1 saves=$1/checkpoints
    local options=("${stage[@]}" "parallel.shard=$2" train.global_batch=2 train.iterations=8
        checkpoint.every=2)
    mkdir -p "$saves"
    mount -t tmpfs -o "size=$3" tmpfs "$saves"
    train_expecting 2 2 "${options[@]}" "out=$run"
    check "$run: one message" test "$(grep -c '^tmd: ' errors)" -eq 1
    check "$run: says what is wrong" grep -q "^tmd: .*$saves/step-00000004.*No space left" errors
    check "$run: the first save is whole" "$tmd" ckpt verify "$saves/step-00000002.h5"
    check "$run: nothing is left of the second" test -z "$(find "$saves" -name 'step-00000004*')"
    mount -o remount,size=100m "$saves"
    train 2 "${options[@]}" "out=$run" resume=auto
    train 2 "${options[@]}" "out=calm-$run"
    check_same_run "$run goes on" "calm-$run" "$run"
}

# a save takes 4 MB, a sharded one 2 x 2.1 MB for the shards and 0.6 MB for the master
full_disk whole none 5m
full_disk one-shard full 7m
full_disk both-shards full 9m
passed
