#!/usr/bin/env bash
# Gathers the program, its tests for a CUDA device and every library that a plain CUDA machine lacks
# into one folder of at most 50 MB, which runs without network or root on x86-64 (AVX2) with glibc
# 2.36 or later:
#
#   scripts/bundle.sh [OUT_DIR]              builds into build-cuda, gathers in build-cuda/tmd-bundle
#   OUT_DIR/scripts/gpu_check.sh             on the machine with the GPU: all checks and benchmarks
#   OUT_DIR/tmd, OUT_DIR/mpirun              the program, and ranks of it on that machine
#
# The CUDA libraries (runtime, cuBLASLt, cuDNN, NCCL) are the target's: scripts/bundle_env.sh looks for
# them there.  $TMD_BUILD_DIR is another build folder; $TMD_CUDA_ARCHITECTURES, as CMake names them,
# builds for fewer architectures than are usual, for one of them takes a third of the time.
set -euo pipefail
bundle=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/.."
build=${TMD_BUILD_DIR:-build-cuda}
bundle=${bundle:-$build/tmd-bundle}
files=$bundle/files # on the way into the archive
limit_mb=50

fail() {
  echo "bundle: $*" >&2
  exit 2
}

# ---- the programs, which look for their libraries beside themselves first

build_programs() {
  local architectures=-UCMAKE_CUDA_ARCHITECTURES # the usual ones, whatever the last build was for
  [ -z "${TMD_CUDA_ARCHITECTURES:-}" ] ||
    architectures=-DCMAKE_CUDA_ARCHITECTURES=$TMD_CUDA_ARCHITECTURES
  scripts/install_deps.sh
  cmake -S . -B "$build" -DTMD_CUDA=ON -DTMD_NATIVE=OFF -DTMD_VIDEO=OFF -DBUILD_SHARED_LIBS=ON \
    -DCMAKE_C_FLAGS=-march=x86-64-v3 -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON \
    -DCMAKE_INSTALL_RPATH="\$ORIGIN/../lib" -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags \
    "$architectures" >/dev/null
  # the test left out reads the source tree
  mapfile -t tests < <(cmake --build "$build" --target help | grep -oE '\bcuda_[a-z0-9_]+$' |
    grep -vx cuda_graph_runs)
  programs=(tmd make_dataset compare_metrics compare_checkpoints "${tests[@]}")
  cmake --build "$build" -j"${TMD_JOBS:-$(nproc)}" --target "${programs[@]}" -- \
    --no-print-directory -s
}

gather_programs() {
  local name path
  mkdir -p "$files/bin" "$files/lib"
  for name in "${programs[@]}"; do
    path=$(find "$build" -path "$bundle" -prune -o -type f -name "$name" -perm -u+x -print -quit)
    [ -n "$path" ] || fail "$build has no program $name"
    cp "$path" "$files/bin"
  done
  find "$build" -path "$bundle" -prune -o -name 'libtmd_*.so' -exec cp -t "$files/lib" {} +
  cp -L "$(command -v mpirun)" "$files/bin"
}

# ---- Open MPI's plugins: those for the ranks of one machine, that is none for networks, batch
# systems, parallel files and profiling

gather_plugins() {
  local from share pmix other='ucx|ofi|psm|psm2|openib|usnic|slurm|flux|gridengine|tm|jsm|monitoring'
  other+='|ompio|romio[0-9]*|ufs|lustre|posix|dynamic|dynamic_gen2|individual|two_phase|vulcan|rdma'
  from=$(ompi_info --parsable --path pkglibdir | cut -d: -f3)
  share=$(ompi_info --parsable --path pkgdatadir | cut -d: -f3)
  pmix=$(dirname "$(readlink -f "$(ldconfig -p | awk '/libpmix\.so/ { print $NF; exit }')")")/pmix
  [ -d "$from" ] || fail "Open MPI has no plugins in '$from'"
  [ -d "$pmix" ] || fail "PMIx has no plugins in '$pmix'"
  mkdir -p "$files/lib/openmpi" "$files/lib/pmix" "$files/share/openmpi"
  find "$from" -name 'mca_*.so' | grep -vE "_($other)\.so$" |
    grep -vE '/mca_(io|fs|fbtl|fcoll|sharedfp|memheap|scoll|spml|sshmem|atomic)_' |
    xargs cp -t "$files/lib/openmpi"
  find "$pmix" -name '*.so' ! -name '*slurm*' -exec cp -t "$files/lib/pmix" {} +
  cp "$share"/help-*.txt "$files/share/openmpi" # what it says when something is wrong
}

# ---- libraries, all that the above need, but glibc's and CUDA's

gather_libraries() {
  local theirs='ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|anl)|lib(cudart|cudnn|cublas|nccl|nvrtc|cuda).*'
  local needed missing
  needed=$(find "$files/bin" "$files/lib" -type f -exec ldd {} + 2>/dev/null || true)
  missing=$(awk '/not found/ { print $1 }' <<<"$needed" | sort -u | tr '\n' ' ')
  [ -z "$missing" ] || fail "this machine lacks $missing"
  awk -v own="$(readlink -f "$files")" '$2 == "=>" && $3 ~ /^\// && index($3, own) != 1 { print $3 }' \
    <<<"$needed" | sort -u | grep -vE "/($theirs)\.so[.0-9]*$" | xargs cp -Lt "$files/lib"
  link_for_mpi
}

# A library with a RUNPATH of its own, as Debian's MPI has, does not heed the programs' path: what such
# ones need gets a link in lib/mpi, which bundle_env.sh names in LD_LIBRARY_PATH.
link_for_mpi() {
  local file name
  mkdir -p "$files/lib/mpi"
  find "$files/lib" -type f -name '*.so*' | while read -r file; do
    objdump -p "$file" | awk '$1 == "RUNPATH" { own = 1 } $1 == "NEEDED" { needed[$2] }
                              END { if (own) for (name in needed) print name }'
  done | sort -u | while read -r name; do
    [ ! -e "$files/lib/$name" ] || ln -s "../$name" "$files/lib/mpi/$name"
  done
}

# ---- letters for plots and contact sheets

gather_font() {
  mkdir -p "$files/share/fonts"
  cp /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf "$files/share/fonts"
  cat >"$files/share/fonts/fonts.conf" <<'FONTS'
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">.</dir><cachedir prefix="relative">cache</cachedir></fontconfig>
FONTS
}

# ---- what the checks read, and the two commands

gather_data() {
  local name
  mkdir -p "$bundle/tests/train" "$bundle/scripts" "$bundle/configs"
  cp -r configs/{machines,wan2.1-1.3b,wan2.1-14b} "$bundle/configs"
  cp -r tests/golden "$bundle/tests"
  cp tests/train/{small.yaml,run_lib.sh,run_cuda.sh,replay_bf16.sh} "$bundle/tests/train"
  cp scripts/{gpu_check.sh,bundle_env.sh,compare_pytorch.py,compare_pytorch_gpu.py} "$bundle/scripts"
  for name in tmd mpirun; do
    cat >"$bundle/$name" <<'WRAPPER'
#!/usr/bin/env bash
. "$(dirname "$(readlink -f "$0")")/scripts/bundle_env.sh"
WRAPPER
    chmod +x "$bundle/$name"
  done
  echo 'exec tmd "$@"' >>"$bundle/tmd"
  # mpirun is not ours, and has to be told where its libraries are
  echo 'LD_LIBRARY_PATH=$programs/lib:$LD_LIBRARY_PATH exec mpirun "$@"' >>"$bundle/mpirun"
}

[ -e "$bundle/programs.tar.gz" ] || [ -z "$(ls -A "$bundle" 2>/dev/null)" ] ||
  fail "$bundle is there already and no bundle"
build_programs
rm -rf "$bundle"
gather_programs
gather_plugins
gather_font
gather_libraries
find "$files/bin" "$files/lib" -type f -exec strip --strip-unneeded {} +
tar -C "$files" -c . | gzip -9 >"$bundle/programs.tar.gz" # bundle_env.sh unpacks it
rm -rf "$files"
gather_data

size_kb=$(du -sk --apparent-size "$bundle" | cut -f1)
echo "$bundle: $((size_kb / 1024)) MB"
[ "$size_kb" -le $((limit_mb * 1000)) ] || fail "$size_kb KB are more than $limit_mb MB"
