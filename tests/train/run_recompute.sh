#!/usr/bin/env bash
# Computing activations again instead of keeping them takes less memory and changes no bit, in any stage.
. "$(dirname "$0")/run_lib.sh"
prepare

step_bytes() { # LOG: "..., step 12.3 MB, ..." in tenths of a megabyte
    sed -n 's/.* step \([0-9]*\)\.\([0-9]\) MB.*/\1\2/p' "$1"
}

for name in teacher kd stage1 stage2; do
    stage_options "$name"
    train 1 "${stage[@]}" train.iterations=7 out="$name-keep" train.recompute=false
    kept=$(step_bytes log)
    train 1 "${stage[@]}" train.iterations=7 out="$name-again" train.recompute=true
    check "$name needs less memory" test "$(step_bytes log)" -lt "$kept"
    check_same_run "$name with recomputation" "$name-keep" "$name-again"
done
passed
