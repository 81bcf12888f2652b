#!/usr/bin/env bash
# Installs what is missing, builds with warnings as errors, and runs all tests.
#   scripts/test.sh              the tests
#   scripts/test.sh --sanitize   the same under AddressSanitizer and UndefinedBehaviorSanitizer
set -euo pipefail
cd "$(dirname "$0")/.."
options=(-DTMD_WERROR=ON)
export TMD_BUILD_DIR=${TMD_BUILD_DIR:-build}
if [ "${1:-}" = --sanitize ]; then
  options+=(-DTMD_SANITIZE=ON)
  TMD_BUILD_DIR=$TMD_BUILD_DIR-sanitize
fi
scripts/build.sh "${options[@]}"

# Tests of one thread each run side by side; those of several ranks say so to CTest themselves.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=passive
ctest --test-dir "$TMD_BUILD_DIR" -j"$(nproc)" --output-on-failure --no-tests=error
