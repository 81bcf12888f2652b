#!/usr/bin/env bash
# Installs what is missing, builds with warnings as errors, and runs all tests: those of the CPU, then the
# CUDA backend's on an emulated device (tests/emulation), for which no GPU is needed.
#   scripts/test.sh              the tests
#   scripts/test.sh --sanitize   the same under AddressSanitizer and UndefinedBehaviorSanitizer
set -euo pipefail
cd "$(dirname "$0")/.."
options=(-DTMD_TESTS=ON -DTMD_WERROR=ON) # whatever an earlier build here was without
build=${TMD_BUILD_DIR:-build}
case "${1:-}" in
  "") ;;
  --sanitize)
    options+=(-DTMD_SANITIZE=ON)
    build=$build-sanitize
    ;;
  *)
    echo "test: '$1' is no option; expected none or --sanitize" >&2
    exit 2
    ;;
esac

# Tests of one thread each run side by side; those of several ranks say so to CTest themselves.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=passive

TMD_BUILD_DIR=$build scripts/build.sh "${options[@]}"
ctest --test-dir "$build" -j"$(nproc)" --output-on-failure --no-tests=error

TMD_BUILD_DIR=$build-emulated scripts/build.sh "${options[@]}" -DTMD_CUDA=EMULATED
ctest --test-dir "$build-emulated" -L cuda -j"$(nproc)" --output-on-failure --no-tests=error
