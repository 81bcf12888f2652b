#!/usr/bin/env bash
# The building half of a container, on a bare Debian 12: builds the program with its CUDA backend,
# and gathers in OUT what setup.sh makes a container of.
#
#   scripts/container/build.sh OUT
#
#   OUT/bin/tmd, OUT/configs
#   OUT/lib             CUDA's libraries; the program looks for them there
#   OUT/packages        names of the Debian packages that the program needs when it runs
#   OUT/setup.sh
#
# $TMD_CUDA_ARCHITECTURES, as CMake names them, builds for fewer GPUs than are usual.
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")/../.."
cuda=/usr/local/cuda

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends ca-certificates python3-pip >/dev/null
[ -x "$cuda/bin/nvcc" ] || scripts/container/install_cuda.sh "$cuda"

# for any x86-64 processor with AVX2, whichever this one is
CUDACXX=$cuda/bin/nvcc scripts/build.sh -DTMD_CUDA=ON -DTMD_TESTS=OFF -DTMD_NATIVE=OFF \
  -DCMAKE_C_FLAGS=-march=x86-64-v3 -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON \
  -DCMAKE_INSTALL_RPATH="\$ORIGIN/../lib" \
  ${TMD_CUDA_ARCHITECTURES:+-DCMAKE_CUDA_ARCHITECTURES="$TMD_CUDA_ARCHITECTURES"}

mkdir -p "$out/bin" "$out/lib"
cp "${TMD_BUILD_DIR:-build}/tmd" "$out/bin"
cp -r configs scripts/container/setup.sh "$out"
for name in cudart cublas cublasLt 'cudnn*' nccl nvrtc nvrtc-builtins; do
  find "$cuda/lib/" -name "lib$name.so.*" -exec cp -Lt "$out/lib" {} +
done

# The rest is in packages: whichever own the libraries that the program is linked with.
ldd "$out/bin/tmd" | awk -v own="$out/" '$2 == "=>" && index($3, own) != 1 { print $3 }' |
  while read -r library; do
    dpkg -S "*/$(basename "$(readlink -f "$library")")" | cut -d: -f1
  done | sort -u >"$out/packages"
