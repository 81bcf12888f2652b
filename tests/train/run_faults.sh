#!/usr/bin/env bash
# What goes wrong in a run ends all of it: a rank that dies, data that only one rank reads, steps that are
# not finite.
. "$(dirname "$0")/run_lib.sh"
prepare

# ---- one of two ranks is killed ----

command_of 2 train.stage=teacher out=orphans train.iterations=100000
"${command[@]}" >log 2>errors &
pid=$!
until [ -s orphans/metrics.jsonl ]; do
    kill -0 "$pid" 2>/dev/null || fail "the run did not start"
    sleep 0.05
done
mapfile -t ranks < <(pgrep -P "$pid" -x tmd)
check "both ranks run" test "${#ranks[@]}" -eq 2
since=$SECONDS
kill -KILL "${ranks[1]}"
code=0
wait "$pid" || code=$?
check "mpirun fails" test "$code" -ne 0
check "mpirun ends soon" test "$((SECONDS - since))" -le 10
while kill -0 "${ranks[0]}" 2>/dev/null && [ "$((SECONDS - since))" -le 10 ]; do sleep 0.05; done
check_not "the other rank is gone" kill -0 "${ranks[0]}"

# ---- data that one rank reads ----

"$tools/make_dataset" damaged.h5 24 3 damaged 7
"$tools/make_dataset" nan.h5 24 3 nan 7
for data in damaged nan; do
    for ranks in 1 2; do
        train_expecting 2 "$ranks" train.stage=teacher "out=$data-$ranks" "data.files=[$data.h5]"
        check "$data: one message" test "$(grep -c '^tmd: ' errors)" -eq 1
        check "$data: names file and sample" grep -q "^tmd: .*$data.h5'*, sample 7" errors
    done
done

# ---- mistakes that every rank sees are told once ----

for mistake in train.stagee=teacher data.files=[none.h5] train.global_batch=1 \
    init.teacher=none resume=none.h5; do
    train_expecting 2 2 train.stage=teacher out=mistake train.micro_batch=1 "$mistake"
    check "$mistake: one message" test "$(grep -c '^tmd: ' errors)" -eq 1
done

# ---- steps that are not finite ----

# the weights leave every bound with the first update, so that every later step is skipped
diverging=(train.stage=teacher optimizer.lr=1e30 train.max_skipped=4 checkpoint.every=1)
for ranks in 1 2; do
    train_expecting 3 "$ranks" "${diverging[@]}" "out=diverged-$ranks"
    metrics=diverged-$ranks/metrics.jsonl
    check "says so once" test "$(grep -c '^tmd: .*train.max_skipped' errors)" -eq 1
    check "the first step counts" test "$(grep -c '"skipped"' <(head -n 1 "$metrics"))" -eq 0
    check "five steps are skipped" test "$(grep -c '"skipped":true' "$metrics")" -eq 5
    check "then the run stops" test "$(wc -l <"$metrics")" -eq 6
done
passed
