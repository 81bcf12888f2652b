#!/usr/bin/env bash
# Every mistake of a user is one sentence on stderr that names path and key, and exit code 2; nothing is
# half-written.
. "$(dirname "$0")/run_lib.sh"
prepare
"$tools/make_dataset" channels.h5 4 5
head -c 3000 clips.h5 >truncated.h5
echo text >text.h5
echo text >file
mkdir empty

# The program's own single line in `errors` holds each of the words.
check_message() { # DESCRIPTION WORD...
    local word
    check "$1: one line" test "$(wc -l <errors)" -eq 1
    check "$1: one sentence" grep -q '^tmd: ' errors
    for word in "${@:2}"; do check "$1: names $word" grep -qF -- "$word" errors; done
    check "$1: nothing half-written" test -z "$(find . -name '*partial*')"
    check "$1: no checkpoint" test -z "$(find out -name '*.h5' 2>/dev/null)"
    rm -rf out
}

refuses() { # DESCRIPTION "WORD ..." [key=value ...]
    train_expecting 2 1 train.stage=teacher out=out "${@:3}"
    # shellcheck disable=SC2086
    check_message "$1" $2
}

# ---- the configuration ----

config_refused() { # FILE WORD...
    local code=0
    "$tmd" train "$1" >log 2>errors || code=$?
    check "$1: exit code 2, not $code" test "$code" -eq 2
    check_message "$1" "$@"
}
config_refused none.yaml
printf 'model:\n  dimm: 4\n' >unknown.yaml
config_refused unknown.yaml :2: model.dimm model.dim
printf 'model:\n  dim: 4\n  dim: 8\n' >duplicate.yaml
config_refused duplicate.yaml :3: model.dim
printf 'model: [\n' >syntax.yaml
config_refused syntax.yaml
printf 'train:\n  iterations: many\n' >type.yaml
config_refused type.yaml :2: train.iterations many
config_refused empty
refuses "unknown key" "train.stagee train.stage" train.stagee=teacher
refuses "out of range" "train.iterations 0" train.iterations=0
refuses "no folder" "out" out=
refuses "warm-up" "optimizer.warmup train.iterations" optimizer.warmup=51
refuses "head" "student.head_blocks model.num_layers" train.stage=stage1 init.teacher=teacher \
    student.head_blocks=4
refuses "taps" "discriminator.features model.num_layers" train.stage=stage2 init.teacher=teacher \
    discriminator.features=[4]

# ---- the data ----

refuses "no data" "none.h5" data.files=[none.h5]
refuses "truncated data" "truncated.h5" data.files=[truncated.h5]
refuses "no HDF5" "text.h5" data.files=[text.h5]
refuses "a folder" "empty" data.files=[empty]
refuses "a checkpoint as data" "step-00000100.h5" data.files=[teacher/checkpoints/step-00000100.h5]
refuses "other channels" "channels.h5 model.in_dim" data.files=[channels.h5]
refuses "files that disagree" "channels.h5" data.files=[clips.h5,channels.h5]
refuses "narrow text" "clips.h5 model.text_dim" model.text_dim=10
refuses "long prompts" "clips.h5 model.text_len" model.text_len=3
refuses "patches" "model.patch_size" model.patch_size=[3,4,4]

# ---- weights to start from ----

teacher=teacher/checkpoints/step-00000100.h5
cp "$teacher" damaged.h5
# zeros from a third of the file to its end: into every kind of tensor
n_pages=$(($(stat -c %s damaged.h5) / 4096))
dd if=/dev/zero of=damaged.h5 bs=4096 seek="$((n_pages / 3))" count="$((n_pages - n_pages / 3))" \
    conv=notrunc status=none
stage1=(train.stage=stage1)
refuses "no teacher" "init.teacher" "${stage1[@]}"
refuses "a missing teacher" "none" "${stage1[@]}" init.teacher=none
refuses "a folder without checkpoints" "empty" "${stage1[@]}" init.teacher=empty
refuses "a damaged teacher" "damaged.h5" "${stage1[@]}" init.teacher=damaged.h5
refuses "a truncated teacher" "truncated.h5" "${stage1[@]}" init.teacher=truncated.h5
refuses "a data set as teacher" "clips.h5" "${stage1[@]}" init.teacher=clips.h5
refuses "a teacher of other sizes" "$teacher" "${stage1[@]}" init.teacher=teacher model.ffn_dim=96
refuses "a shallower teacher" "$teacher blocks.4." "${stage1[@]}" init.teacher=teacher \
    model.num_layers=5
refuses "a deeper teacher" "$teacher blocks.3." "${stage1[@]}" init.teacher=teacher model.num_layers=3
refuses "a student with a head for one without" "student/checkpoints/step-00000010.h5 delta_embedding" \
    train.stage=stage2 init.teacher=teacher init.student=student student.head_blocks=0
refuses "a teacher as student" "$teacher student" train.stage=stage2 init.teacher=teacher \
    init.student=teacher
refuses "another fusion" "student/checkpoints/step-00000010.h5 fusion" train.stage=stage2 \
    init.teacher=teacher init.student=student student.fusion=concat

# ---- resuming ----

refuses "a missing checkpoint" "none.h5" resume=none.h5
refuses "another stage's checkpoint" "step-00000010.h5 teacher stage1" \
    resume=student/checkpoints/step-00000010.h5
cp teacher/config.yaml before.yaml
train_expecting 2 1 train.stage=stage1 init.teacher=teacher out=teacher resume=auto
check_message "a stage in another's folder" "$teacher" stage1
check "the folder's configuration is as it was" cmp before.yaml teacher/config.yaml
refuses "a damaged checkpoint" "damaged.h5" resume=damaged.h5
refuses "other sizes" "$teacher" "resume=$teacher" model.ffn_dim=96
refuses "fewer layers" "$teacher blocks.3." "resume=$teacher" model.num_layers=3

# what a crash or a stranger left of the metrics
cp -r teacher crashed
more=(train.stage=teacher out=crashed resume=auto train.iterations=101)
rm crashed/metrics.jsonl && mkfifo crashed/metrics.jsonl
train_expecting 2 1 "${more[@]}"
check_message "a pipe for the metrics" crashed/metrics.jsonl
rm crashed/metrics.jsonl && truncate -s 1T crashed/metrics.jsonl
train_expecting 2 1 "${more[@]}"
check_message "metrics without a line" crashed/metrics.jsonl
printf '{"iteration":98}\n{"iteration":99}' >crashed/metrics.jsonl
train_expecting 0 1 "${more[@]}"
check "a last line without its end gets one" test "$(grep -c '^{.*}$' crashed/metrics.jsonl)" -eq 3

# ---- on two ranks: told once ----

# On two ranks stderr holds one line of the program, with each of the words; mpirun adds its own.
refuses_once() { # DESCRIPTION "WORD ..." [key=value ...]
    local word
    train_expecting 2 2 train.stage=teacher out=out "${@:3}"
    check "$1 on two ranks: one message" test "$(grep -c '^tmd: ' errors)" -eq 1
    # shellcheck disable=SC2086
    for word in $2; do
        check "$1 on two ranks: names $word" grep -q "^tmd: .*$word" errors
    done
    rm -rf out
}

refuses_once "no data" "none.h5" data.files=[none.h5]
refuses_once "truncated data" "truncated.h5" data.files=[truncated.h5]
refuses_once "other channels" "channels.h5 model.in_dim" data.files=[channels.h5]
refuses_once "a folder without checkpoints" "empty" "${stage1[@]}" init.teacher=empty
refuses_once "a damaged teacher" "damaged.h5" "${stage1[@]}" init.teacher=damaged.h5
refuses_once "a truncated teacher" "truncated.h5" "${stage1[@]}" init.teacher=truncated.h5
refuses_once "a teacher of other sizes" "$teacher" "${stage1[@]}" init.teacher=teacher model.ffn_dim=96
refuses_once "a missing checkpoint" "none.h5" resume=none.h5
refuses_once "a damaged checkpoint" "damaged.h5" resume=damaged.h5
refuses_once "another stage's checkpoint" "step-00000010.h5 teacher stage1" \
    resume=student/checkpoints/step-00000010.h5
refuses_once "other sizes" "$teacher" "resume=$teacher" model.ffn_dim=96

# damaged checkpoints that a run's folder holds beside good ones are passed over, and named once
cp -r teacher partly
cp damaged.h5 partly/checkpoints/step-00000200.h5
train_expecting 0 2 "${stage1[@]}" init.teacher=partly out=out train.iterations=1
check "the damaged checkpoint is named once" test "$(grep -c '^tmd: skipping.*step-00000200.h5' errors)" -eq 1
rm -rf out

# what only the second rank meets is told as it is, though the first one must stop as well
kd=(train.stage=kd init.teacher=teacher train.iterations=1)
train_expecting 0 2 "${kd[@]}" out=out
part=$(find out/pairs -name '*-6-6.h5')
check "the second rank makes half of the pairs" test -f "$part"
rm -r "$part" out/checkpoints
mkdir "$part.partial"
train_expecting 2 2 "${kd[@]}" out=out
check "pairs in the way: one message" test "$(grep -c '^tmd: ' errors)" -eq 1
check "pairs in the way: names the file" grep -q "^tmd: .*$part.partial" errors
rm -rf out

# ---- the folder ----

refuses "a file for a folder" "file" out=file
refuses "a file in the way" "file" out=file/run
check "the file is as it was" test "$(cat file)" = text
mkdir -p way/config.yaml
refuses "a folder in the way of a file" "config.yaml" out=way
passed
