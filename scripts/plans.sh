#!/usr/bin/env bash
# Writes beside the configurations for so many GPUs what they take: configs/MODEL/N-gpus/plan.txt, from
# `tmd plan` over both stages on H100s.
#
#     scripts/plans.sh [TMD]              # default build/tmd
#     scripts/plans.sh --check [TMD]      # exit 1 if a plan is not what the program says
set -euo pipefail
cd "$(dirname "$0")/.."

check=
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
tmd=$(realpath "${1:-build/tmd}")

# The paths that a plan names are those of a user in this folder.
plan() { # FOLDER
    local gpus=${1##*/}
    "$tmd" plan "$1/stage1.yaml" "$1/stage2.yaml" --gpus "${gpus%%-*}"
}

stale=0
for folder in configs/*/*-gpu configs/*/*-gpus; do
    if [ -n "$check" ]; then
        plan "$folder" | cmp -s - "$folder/plan.txt" && continue
        echo "$folder/plan.txt is not what \`tmd plan\` says; scripts/plans.sh writes it anew" >&2
        stale=1
    else
        plan "$folder" >"$folder/plan.txt" || echo "$folder does not fit" >&2
        echo "$folder: $(grep -oE '[0-9.]+ of [0-9.]+ GB, [0-9.]+ %' "$folder/plan.txt" | tr '\n' ' ')"
    fi
done
exit $stale
