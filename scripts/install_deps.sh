#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that building, testing and the quick start need, those of them
# that are missing.  Asks for root through sudo if it has to.
set -euo pipefail

packages=(
  build-essential cmake pkg-config
  libopenmpi-dev openmpi-bin               # ranks
  libhdf5-dev libzstd-dev zlib1g-dev libdeflate-dev # data and checkpoints
  libyaml-dev libjansson-dev               # configuration; JSON
  libdnnl-dev                              # matrix products and convolutions on the CPU
  libcairo2-dev libgif-dev fonts-dejavu-core # pictures
  libavformat-dev libavcodec-dev libavutil-dev libswscale-dev # video files
  libcmocka-dev                            # tests
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "install_deps: needs root to install: ${missing[*]}" >&2
    exit 2
  }
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
