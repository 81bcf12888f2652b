#!/usr/bin/env bash
# Computing activations again instead of keeping them takes less memory and changes no bit, in any
# stage; keeping what the attentions gave lies between.
. "$(dirname "$0")/run_lib.sh"
prepare

step_bytes() { # LOG: "..., step 12.3 MB, ..." in tenths of a megabyte
    sed -n 's/.* step \([0-9]*\)\.\([0-9]\) MB.*/\1\2/p' "$1"
}

for name in teacher kd stage1 stage2; do
    stage_options "$name"
    train 1 "${stage[@]}" train.iterations=7 out="$name-none" train.recompute=none
    more=$(step_bytes log)
    for policy in keep_attention full; do
        train 1 "${stage[@]}" train.iterations=7 out="$name-$policy" "train.recompute=$policy"
        check "$name needs less memory with $policy" test "$(step_bytes log)" -lt "$more"
        more=$(step_bytes log)
        check_same_run "$name with $policy" "$name-none" "$name-$policy"
    done
done
passed
