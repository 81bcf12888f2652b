#!/usr/bin/env bash
# What can only be seen on a GPU, in one command and at most eight minutes on one H100: the operation
# tests on the device, the recorded cases, a training run against the CPU's, compute-sanitizer, and
# the benchmarks at the sizes of Wan2.1 1.3B and 14B.
#
#   scripts/gpu_check.sh [OUT_DIR]    in a folder made by bundle.sh, or in a source tree that was built
#                                     with -DTMD_CUDA=ON into build-cuda or $TMD_BUILD_DIR
#
# OUT_DIR (gpu_check) gets a log of each part, the benchmarks' numbers, and gpu_check.json: the table
# that is printed at the end, and those numbers.  A part that fails does not stop the others; the exit
# code is 1 if any failed.  $TMD_CHECK_PARTS names the parts to run, if not all.
set -euo pipefail
self=$(readlink -f "$0")
root=$(dirname "$(dirname "$self")")

if [ -e "$root/programs.tar.gz" ]; then
  . "$root/scripts/bundle_env.sh"
  tests=$programs/bin tools=$programs/bin mpirun=$root/mpirun
else
  build=$(cd "$root" && readlink -f "${TMD_BUILD_DIR:-build-cuda}")
  tests=$build/tests/kernels tools=$build/tests/train mpirun=mpirun
  PATH=$build:$PATH
fi
program=$(command -v tmd) || { echo "gpu_check: no tmd in $PATH" >&2; exit 2; }

# name | seconds at most | what it is
parts='device       10 device, driver, libraries
ops_f32      40 operation tests, float32
ops_bf16     40 operation tests, bfloat16
golden_f32   20 recorded cases, float32, 1e-4
golden_bf16  20 recorded cases, bfloat16, bounds of the format
training     60 every stage of training against the CPU
memcheck     35 compute-sanitizer memcheck
racecheck    35 compute-sanitizer racecheck
bench_1.3b   50 benchmarks at the sizes of 1.3B
bench_14b    50 benchmarks at the sizes of 14B
bench_step  110 student update of 1.3B by recomputation policy'
# $TMD_SLOWNESS times as much on an emulated device
slowness=${TMD_SLOWNESS:-1} limit_seconds=$((480 * ${TMD_SLOWNESS:-1}))
skipped=77

# ---- the parts; the last line that one prints is what the table says of it

device_name() {
  nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true
}

part_device() {
  ldd "$program" | awk '/libcud|libcublas|libnccl/ { print $1, $3 }' | while read -r name path; do
    echo "$name $(readlink -f "$path")"
  done
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader || true
  tmd bench --device cuda --what machine --side 2048 --seconds 0.01 >machine.log
  head -n 1 machine.log # the device, and the versions of driver and libraries
}

# Runs COMMAND TEST for all operation tests; tells how many failed or, within a time limit, did not end.
each_test() { # COMMAND...
  local test code failed='' unfinished='' n=0
  for test in "$tests"/cuda_*; do
    [ -f "$test" ] || continue # the build keeps folders beside them
    n=$((n + 1)) code=0
    echo "== $(basename "$test")"
    "$@" "$test" || code=$?
    case $code in
      0) ;;
      124 | 137) unfinished+=" $(basename "$test")" ;;
      *) failed+=" $(basename "$test")" ;;
    esac
  done
  echo "$n tests${failed:+, failed:$failed}${unfinished:+, out of time:$unfinished}"
  [ "$n" -gt 0 ] && [ -z "$failed" ]
}
part_ops_f32() { TMD_TEST_ACT=f32 each_test timeout $((30 * slowness)); }
part_ops_bf16() { TMD_TEST_ACT=bf16 each_test timeout $((30 * slowness)); }

part_golden_f32() {
  local folder failed='' n=0
  for folder in "$root"/tests/golden/*/; do
    n=$((n + 1))
    tmd replay "${folder%/}" --device cuda --precision f32 --tol 1e-4 ||
      failed+=" $(basename "$folder")"
  done
  echo "$n cases${failed:+, failed:$failed}"
  [ "$n" -gt 0 ] && [ -z "$failed" ]
}

part_golden_bf16() {
  local folder failed='' n=0
  for folder in "$root"/tests/golden/*/; do
    n=$((n + 1))
    "$root/tests/train/replay_bf16.sh" "$program" "${folder%/}" || failed+=" $(basename "$folder")"
  done
  echo "$n cases${failed:+, failed:$failed}"
  [ "$n" -gt 0 ] && [ -z "$failed" ]
}

part_training() {
  TMD_CUDA_DEVICES=$(nvidia-smi -L 2>/dev/null | grep -c . || true) \
    "$root/tests/train/run_cuda.sh" "$program" "$mpirun" "$tools"
}

sanitizer() { # TOOL
  local found
  found=$(command -v compute-sanitizer || ls -d /usr/local/cuda*/bin/compute-sanitizer \
    /opt/nvidia/*/*/compute-sanitizer 2>/dev/null | head -n 1 || true)
  if [ -z "$found" ]; then
    echo "compute-sanitizer is not on this machine"
    return "$skipped"
  fi
  each_test timeout $((10 * slowness)) "$found" --tool "$1" --error-exitcode 9
}
part_memcheck() { TMD_TEST_ACT=bf16 sanitizer memcheck; }
part_racecheck() { TMD_TEST_ACT=f32 sanitizer racecheck; }

# The published peak in TFLOP/s, from the tables of `tmd plan`; 0 for a device without a table.
nominal_peak() {
  local table=
  case $(device_name) in
    *H100*HBM3*) table=h100 ;;
    *H200*) table=h200 ;;
    *B200*) table=b200 ;;
    *A100*80GB*) table=a100 ;;
  esac
  [ -n "$table" ] || { echo 0; return; }
  awk '$1 == "flops:" { print $2 / 1e12; exit }' "$root/configs/machines/gpu/$table.yaml"
}

bench() { # NAME MODEL [argument ...]
  local name=$1 config=$root/configs/wan2.1-$2/stage2.yaml
  tmd bench "$config" device.backend=cuda --frames 21 --height 60 --width 104 \
    --nominal-tflops "$(nominal_peak)" --json "$name.json" "${@:3}"
}
bench_sizes() { # NAME MODEL: one after the other, so that each stands in a file of its own
  local what
  for what in block elementwise; do
    bench "$1_$what" "$2" --what "$what" --seconds 0.1
  done
  echo "$(cat "$1"_*.json | grep -c floor_share) rows"
}
part_bench_1.3b() { bench_sizes bench_1.3b 1.3b; }
part_bench_14b() { bench_sizes bench_14b 14b; }
part_bench_step() {
  bench bench_step 1.3b --what recompute --seconds 0.1
  echo "$(grep -c floor_share bench_step.json) rows"
}

if [ "${1:-}" = --part ]; then
  "part_$2"
  exit
fi

# ---- all of them, and the table

out=${1:-gpu_check}
mkdir -p "$out"
cd "$out"
rm -f ./*.log ./*.json
export OMP_WAIT_POLICY=passive TMD_CACHE_DIR=$PWD/cache # what is tuned here is not left behind
device=$(device_name) device=${device:-no device}
started=$SECONDS table='' json='' status=0

add_result() { # PART WHAT RESULT SECONDS DETAIL
  table+=$(printf '%-48s %-8s %5d s  %s' "$2" "$3" "$4" "$5")$'\n'
  json+=${json:+,$'\n'}$(printf '  {"part": "%s", "what": "%s", "result": "%s", "seconds": %d, "detail": "%s"}' \
    "$1" "$2" "$3" "$4" "$(tr -d '"\\' <<<"$5")")
}

while read -r name seconds what; do
  case " ${TMD_CHECK_PARTS:-$name} " in *" $name "*) ;; *) continue ;; esac
  seconds=$((seconds * slowness)) left=$((limit_seconds - SECONDS + started)) begin=$SECONDS code=0
  [ "$seconds" -le "$left" ] || seconds=$left
  if [ "$seconds" -lt 1 ]; then
    add_result "$name" "$what" "no time" 0 "the $limit_seconds seconds are used up"
    status=1
    continue
  fi
  echo "-- $what"
  timeout --kill-after=5 "$seconds" "$self" --part "$name" >"$name.log" 2>&1 </dev/null || code=$?
  detail=$(tail -n 1 "$name.log" | cut -c1-200)
  case $code in
    0) result=ok ;;
    "$skipped") result=skipped ;;
    124 | 137) result=TIMEOUT status=1 ;;
    *) result=FAILED status=1 ;;
  esac
  [ "$code" -eq 0 ] || [ "$code" -eq "$skipped" ] || tail -n 5 "$name.log"
  add_result "$name" "$what" "$result" "$((SECONDS - begin))" "$detail"
done <<<"$parts"

[ -n "$table" ] || { echo "gpu_check: no part is named '$TMD_CHECK_PARTS'" >&2; exit 2; }
{
  printf '{"device": "%s", "date": "%s",\n"parts": [\n%s],\n"benchmarks": {' \
    "$device" "$(date -u +%Y-%m-%d)" "$json"
  separator=
  for file in bench_*.json; do
    [ -e "$file" ] || continue
    printf '%s\n"%s": ' "$separator" "${file%.json}"
    cat "$file"
    separator=,
  done
  printf '}}\n'
} >gpu_check.json

grep -h "wanted:" bench_*.log 2>/dev/null || true
printf '\n%s\n%s, %d s; logs and gpu_check.json in %s\n' "$table" "$device" \
  $((SECONDS - started)) "$PWD"
exit $status
