#!/usr/bin/env bash
# The whole distillation at toy size, in minutes on two processor cores: draws a captioned dataset,
# trains a teacher, distils it in two stages on two MPI ranks, and measures what came out.
#
# Installs and builds what is missing first.  Everything is written below runs/tiny and data/.
set -euo pipefail
cd "$(dirname "$0")/.."
export TMD_BUILD_DIR=${TMD_BUILD_DIR:-build}
scripts/build.sh -DTMD_TESTS=OFF
tmd=$TMD_BUILD_DIR/tmd
started=$SECONDS

step() { printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

step "a dataset of moving shapes"
rm -rf runs/tiny
mkdir -p data runs/tiny
"$tmd" data shapes --out data/shapes.h5 --count 8192 --holdout data/heldout.h5 --holdout-count 1024

for stage in teacher stage1 stage2; do
  step "$stage, on two ranks"
  scripts/ranks.sh 2 "$tmd" train "configs/tiny/$stage.yaml"
done

step "what came out: all samplers from the same noise"
status=0
"$tmd" eval --data data/heldout.h5 --clips 512 --out runs/tiny/eval \
  --must-beat "stage two,teacher 3 steps,teacher 1 step guided" \
  "teacher 25 steps=runs/tiny/teacher:steps=25,guidance=2" \
  "teacher 3 steps=runs/tiny/teacher:steps=3,guidance=1" \
  "teacher 1 step guided=runs/tiny/teacher:steps=1,guidance=2" \
  "untrained student=runs/tiny/teacher:role=untrained" \
  "stage one=runs/tiny/stage1" \
  "stage two=runs/tiny/stage2" || status=$?
"$tmd" plot --out runs/tiny/losses.png runs/tiny/teacher runs/tiny/stage1 runs/tiny/stage2

step "done"
cat <<TXT
  runs/tiny/eval/sheet.png    the samplers side by side     runs/tiny/eval/sheet.gif   the same, moving
  runs/tiny/eval/table.txt    the table above               runs/tiny/losses.png       the losses
  runs/tiny/stage2            the student: metrics.jsonl, checkpoints, previews
TXT
exit $status
