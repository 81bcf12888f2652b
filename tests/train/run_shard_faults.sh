#!/usr/bin/env bash
# What goes wrong in a sharded run and with its checkpoints: shards that are missing, damaged or of another
# save; saves that fail on one rank; signals while a save is under way; more ranks than samples; steps that
# are not finite; previews and dumps that cannot be written.  Every time all ranks end or go on together,
# it is told in one sentence, and a run goes on from what is left in the bits of one that nobody disturbed.
. "$(dirname "$0")/run_pair.sh"
prepare
stage_options stage2
options=("${stage[@]}" parallel.shard=full train.global_batch=2)
last=step-00000008

# `errors` holds one line of the program, with each of the words.
check_message() { # DESCRIPTION WORD...
    local word
    check "$1: one message" test "$(grep -c '^tmd: ' errors)" -eq 1
    for word in "${@:2}"; do check "$1: names $word" grep -q "^tmd: .*$word" errors; done
}

# ---- damaged shards ----

# DAMAGE FOLDER SHARD: to one of the shards in the folder, in the place of which comes what its name says
missing() { rm "$1/$2"; }
of_another_step() { cp "${1%/*}"/step-00000006.shards-*/"$2" "$1/$2"; }
of_another_rank() { cp "$1"/rank-000-of-002.h5 "$1/$2"; }
flipped() { flip_bytes "$1/$2"; }
short() { cut_short "$1/$2"; }
nothing() { empty "$1/$2"; }

train 2 "${options[@]}" out=intact train.iterations=8 checkpoint.every=2
train 2 "${options[@]}" out=other train.iterations=8 train.seed=3
of_another_run() { cp other/checkpoints/"$last".shards-*/"$2" "$1/$2"; }

for damage in missing of_another_step of_another_rank of_another_run flipped short nothing; do
    cp -r intact "$damage"
    shards=$(echo "$damage/checkpoints/$last".shards-*)
    "$damage" "$shards" rank-001-of-002.h5
    newest=$damage/checkpoints/$last.h5
    check_not "$damage is seen" "$tmd" ckpt verify "$newest"
    train_expecting 2 2 "${options[@]}" "out=explicit-$damage" "resume=$newest" train.iterations=8
    check_message "$damage, asked for" "$newest" "rank-001-of-002.h5"
    check_not "$damage: nothing was begun" test -e "explicit-$damage/config.yaml"
    train_expecting 0 2 "${options[@]}" "out=$damage" resume=auto train.iterations=8
    check_message "$damage, passed over" "skipping.*$newest" "rank-001-of-002.h5"
    check "$damage: the one before is taken" grep -q 'at iteration 6$' log
    check_same_run "$damage" intact "$damage"
    check_no_leftovers "$damage"
done

# ---- saves that fail ----

# What a save that failed at iteration 4 leaves: the checkpoint of iteration 2, from which the run goes on.
check_failed_save() { # RUN
    check "$1: the checkpoint before is the newest" \
        test "$(newest_checkpoint "$1")" = "$1/checkpoints/step-00000002.h5"
    check "$1: it is whole" "$tmd" ckpt verify "$(newest_checkpoint "$1")"
    check_no_leftovers "$1"
    train 2 "${options[@]}" "out=$1" resume=auto train.iterations=8 checkpoint.every=2
    check_same_run "$1 goes on" intact "$1"
}

# a rank may write no more than part of its shard, as on a full disk of its own
cat >limited <<END
#!/usr/bin/env bash
trap '' XFSZ
if [ "\$TMD_RANK" = "\$LIMITED_RANK" ]; then ulimit -f 1000; fi
exec "$tmd" "\$@"
END
chmod +x limited
for rank in 0 1; do
    run=limited-$rank
    train 2 "${options[@]}" "out=$run" train.iterations=2
    tmd=./limited LIMITED_RANK=$rank start_pair tcp "${options[@]}" "out=$run" resume=auto \
        train.iterations=8 checkpoint.every=2
    await_pair 60 0
    check "$run: all end with 2, not ${codes[*]}" test "${codes[*]}" = "2 2"
    cat errors-* >errors
    check_message "$run" "step-00000004.*rank-00$rank-of-002.h5" "File too large"
    check_failed_save "$run"
done

# the shards are all there, but not the master
mkdir -p master/checkpoints/step-00000004.h5.partial
train_expecting 2 2 "${options[@]}" out=master train.iterations=8 checkpoint.every=2
check_message "no master" "step-00000004.h5.partial"
rmdir master/checkpoints/step-00000004.h5.partial
check_failed_save master

# ---- a signal while a save is under way ----

start_pair mpi "${options[@]}" out=signalled train.iterations=8 checkpoint.every=2 \
    checkpoint.zstd_level=19
await_change "signalled/checkpoints/*.shards-*/*.partial"
kill -TERM "${ranks[1]}"
await_pair 60 0
check "signalled: ends with 75, not ${codes[0]}" test "${codes[0]}" -eq 75
check_message "signalled" "a signal came"
n_done=$(wc -l <signalled/metrics.jsonl)
check "signalled: early" test "$n_done" -lt 8
check "signalled: saved at its end" \
    test "$(newest_checkpoint signalled)" = "signalled/checkpoints/$(printf 'step-%08d.h5' "$n_done")"
for checkpoint in signalled/checkpoints/step-*.h5; do
    check "signalled: $checkpoint is whole" "$tmd" ckpt verify "$checkpoint"
done
check "signalled: the save under way was completed" test -f signalled/checkpoints/step-00000002.h5
check_no_leftovers signalled
train 2 "${options[@]}" out=signalled resume=auto train.iterations=8
check_same_run "signalled" intact signalled

# ---- more ranks than samples ----

for shard in optimizer full; do
    train_expecting 2 3 "${stage[@]}" out=crowded "parallel.shard=$shard" train.global_batch=2
    check_message "more ranks than samples, $shard" "train.global_batch is 2" "3 ranks"
done
# of a dataset that has fewer samples than ranks each takes its turn
"$tools/make_dataset" few.h5 2 3
few=("${stage[@]}" "data.files=[few.h5]" train.global_batch=4 train.iterations=6)
train 1 "${few[@]}" out=few-1
train 4 "${few[@]}" out=few-4 parallel.shard=full
check "two samples for four ranks" "$tools/compare_metrics" few-1/metrics.jsonl few-4/metrics.jsonl \
    1e-5 1e-3

# ---- steps that are not finite, which all ranks help to dump ----

for shard in optimizer full; do
    run=diverged-$shard
    train_expecting 3 2 train.stage=teacher "parallel.shard=$shard" "out=$run" optimizer.lr=1e30 \
        train.max_skipped=3 checkpoint.every=1
    check "$run: says so once" test "$(grep -c '^tmd: .*train.max_skipped' errors)" -eq 1
    check "$run: the step is dumped" test -s "$run/replay-00000001-rank0/expected.safetensors"
    check "$run: stops there" test "$(wc -l <"$run/metrics.jsonl")" -eq 5
    check "$run: the last save is complete" "$tmd" ckpt verify "$run/checkpoints/step-00000005.h5"
    check_no_leftovers "$run"
done

# ---- previews and dumps that cannot be written ----

previewed=("${options[@]}" train.iterations=8 preview.every=4 preview.count=1)
mkdir no-previews
: >no-previews/previews
train_expecting 2 2 "${previewed[@]}" out=no-previews
check_message "no folder for previews" "no-previews/previews"
mkdir -p half-previewed/previews/step-00000004.png
train_expecting 0 2 "${previewed[@]}" out=half-previewed
check_message "a preview in the way" "half-previewed/previews/step-00000004.png"
check "the run goes on, and draws the next" test -s half-previewed/previews/step-00000008.png
check_same_run "a preview in the way" intact half-previewed

# between the gathers of two roles, in which the other rank helps
dump=half-dumped/replay-00000006-rank0
mkdir -p "$dump/fake.safetensors"
train_expecting 2 2 "${options[@]}" out=half-dumped train.iterations=8 checkpoint.every=2 train.dump_at=6
check_message "a dump in the way" "$dump/fake.safetensors"
check "a dump in the way: a checkpoint is whole" "$tmd" ckpt verify "$(newest_checkpoint half-dumped)"
passed
