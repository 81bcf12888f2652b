#!/usr/bin/env bash
# 1, 2 and 4 ranks give the same losses over 50 iterations up to the order of summation, 1e-5 relative, in
# every stage; also where neither the global batch nor a rank's share divides evenly.
. "$(dirname "$0")/run_lib.sh"
prepare
iterations=train.iterations=$(repeats 50)

compare() { # NAME: runs NAME-1, NAME-2 and NAME-4
    local ranks
    for ranks in 2 4; do
        check "$1 on $ranks ranks as on one" "$tools/compare_metrics" "$1-1/metrics.jsonl" \
            "$1-$ranks/metrics.jsonl" 1e-5 1e-3
    done
}

for name in teacher kd stage1 stage2; do
    stage_options "$name"
    for ranks in 1 2 4; do train "$ranks" "${stage[@]}" "$iterations" "out=$name-$ranks"; done
    compare "$name"
done

# the comparison can fail
train 1 train.stage=teacher "$iterations" out=other-seed train.seed=2
check_not "another seed has other losses" "$tools/compare_metrics" teacher-1/metrics.jsonl \
    other-seed/metrics.jsonl 1e-5 1e-3
check_not "a shorter run is told apart" "$tools/compare_metrics" teacher-1/metrics.jsonl \
    teacher/metrics.jsonl 1 1
passed
