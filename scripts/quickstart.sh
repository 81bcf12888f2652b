#!/usr/bin/env bash
# The whole distillation at toy size, in minutes on two processor cores: draws a captioned dataset,
# distils a teacher in two stages on two MPI ranks, and measures what came out.
#
#   scripts/quickstart.sh                   with the teacher that comes along (configs/tiny/teacher.h5)
#   scripts/quickstart.sh --train-teacher   trains it first, by configs/tiny/teacher.yaml
#
# Installs and builds what is missing first.  Everything is written below runs/tiny and data/.
set -euo pipefail
case "${1:-}" in
  "" | --train-teacher) ;;
  *)
    echo "quickstart: '$1' is no option; expected none or --train-teacher" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
export TMD_BUILD_DIR=${TMD_BUILD_DIR:-build}
scripts/build.sh -DTMD_TESTS=OFF
tmd=$TMD_BUILD_DIR/tmd
started=$SECONDS

step() { printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

step "a dataset of moving shapes"
rm -rf runs/tiny
mkdir -p data runs/tiny
"$tmd" data shapes --out data/shapes.h5 --count 8192 --holdout data/heldout.h5 --holdout-count 2048

teacher=configs/tiny/teacher.h5
stages=(stage1 stage2)
if [ "${1:-}" = --train-teacher ]; then
  teacher=runs/tiny/teacher
  stages=(teacher "${stages[@]}")
fi
for stage in "${stages[@]}"; do
  step "$stage, on two ranks"
  init=(init.teacher="$teacher")
  [ "$stage" = teacher ] && init=()
  scripts/ranks.sh 2 "$tmd" train "configs/tiny/$stage.yaml" "${init[@]}" train.log_every=50
done

step "what came out: all samplers from the same noise"
status=0
"$tmd" eval --data data/heldout.h5 --clips 1024 --out runs/tiny/eval \
  --must-beat "stage two,teacher 3 steps,teacher 2 steps" \
  "teacher 25 steps=$teacher:config=configs/tiny/teacher.yaml,steps=25,guidance=2" \
  "teacher 3 steps=$teacher:config=configs/tiny/teacher.yaml,steps=3,guidance=1" \
  "teacher 2 steps=$teacher:config=configs/tiny/teacher.yaml,steps=2,guidance=1" \
  "untrained student=$teacher:config=configs/tiny/stage1.yaml,role=untrained" \
  "stage one=runs/tiny/stage1" \
  "stage two=runs/tiny/stage2" || status=$?
"$tmd" plot --out runs/tiny/losses.png "${stages[@]/#/runs/tiny/}"

step "done"
cat <<TXT
  runs/tiny/eval/sheet.png    the samplers side by side     runs/tiny/eval/sheet.gif   the same, moving
  runs/tiny/eval/table.txt    the table above               runs/tiny/losses.png       the losses
  runs/tiny/stage2            the student: metrics.jsonl, checkpoints, previews
TXT
exit $status
