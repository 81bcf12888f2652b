#!/usr/bin/env bash
# `tmd bench` on tiny networks: each part gives its section, every row has a time, and steps are
# measured with each recomputation policy.  How fast anything is, is not checked.
. "$(dirname "$0")/run_lib.sh"
stage=(train.stage=stage2 init.teacher=none init.student=none) # weights are random ones

bench() { # [argument ...]
    "$tmd" bench "$small" "${stage[@]}" --seconds 0.001 --json bench.json "$@" >log 2>errors ||
        fail "bench $*"
}
check_section() { # WORD
    check "has a section about $1" grep -qE "\"name\": \"$1" bench.json
}
check_timed() { # every row has taken some time, and none is NaN
    check "rows" grep -q '"seconds":' bench.json
    check_not "a time of zero" grep -qE '"seconds": (0\.0,|-)' bench.json
    check_not "not a number" grep -qiE 'nan|inf' bench.json
}
check_parts() { # PART WORD...
    bench --what "$1"
    local word
    for word in "${@:2}"; do check_section "$word"; done
    check_timed
}

check_parts gemm machine "a block's products"
check_parts attention attention
for shape in "to itself" "to text"; do
    for direction in forward backward; do
        check "the best plan $shape, $direction" \
            grep -q "\"name\": \"$shape, $direction: time of the best plan / ours\"" bench.json
    done
done
check_parts elementwise "passes over memory"
check_parts block "a block's products" attention "one block"
check_not "its own part only" grep -q "passes over memory" bench.json
check_parts step "student step" "critic step" "its operations"
check_parts recompute "student step.*recompute none" "student step.*recompute keep_attention" \
    "student step.*recompute full"
check "what is gained" grep -q "full recomputation / keeping attention outputs" bench.json

mkdir disk
bench --what checkpoint --folder disk --mib 1
check_section checkpoint
check_timed
for row in "save, one thread" "plain read, one thread" "plain read, all threads" load; do
    check "a row: $row" grep -q "\"name\": \"$row" bench.json
done
check "what a load reaches" grep -q "weights of a load / plain read" bench.json
check "nothing left behind" test -z "$(ls disk)"
check_not "a folder that is none" "$tmd" bench --what checkpoint --seconds 0.001 --folder disk/none

check_not "steps without a configuration" "$tmd" bench --what step
passed
