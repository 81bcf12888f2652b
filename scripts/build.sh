#!/usr/bin/env bash
# Installs what is missing and builds into build/ (or $TMD_BUILD_DIR).  Arguments go to CMake.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install_deps.sh
build=${TMD_BUILD_DIR:-build}
if ! log=$(cmake -S . -B "$build" "$@" 2>&1); then
  echo "$log" >&2
  exit 1
fi
cmake --build "$build" -j"$(nproc)" -- --no-print-directory -s
