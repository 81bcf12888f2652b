#!/usr/bin/env bash
# Puts compiler and libraries of CUDA, cuDNN and NCCL into a folder, arranged as a toolkit:
#
#   scripts/container/install_cuda.sh PREFIX
#
# They come out of NVIDIA's Python packages, in the versions that the CUDA backend is built with.
set -euo pipefail
prefix=$1

packages=(
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 # the compiler
  nvidia-cuda-cccl==13.0.85 nvidia-cuda-runtime==13.0.96
  nvidia-cublas==13.1.0.3
  nvidia-cudnn-cu13==9.19.0.56 nvidia-cuda-nvrtc==13.0.88 # which compiles for cuDNN at run time
  nvidia-nccl-cu13==2.28.9
)
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
python3 -m pip install --quiet --root-user-action=ignore --no-cache-dir --no-deps \
  --target "$unpacked" "${packages[@]}"

mkdir -p "$prefix/targets/x86_64-linux"
for part in cu13 cudnn nccl; do cp -r "$unpacked/nvidia/$part/." "$prefix"; done
chmod -R a+rX "$prefix"
ln -sfn lib "$prefix/lib64"
ln -sfn ../../include "$prefix/targets/x86_64-linux/include"
ln -sfn ../../lib "$prefix/targets/x86_64-linux/lib"

# The packages have libraries by the names that programs load; linkers ask for those without a
# version.
cd "$prefix/lib"
for library in lib*.so.*; do ln -sf "$library" "${library%%.so.*}.so"; done
