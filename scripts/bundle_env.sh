# Sourced by what is started in a folder made by bundle.sh: unpacks its programs when they are first
# asked for, puts them first on the path, and finds the CUDA libraries.  Sets `bundle`, the folder, and
# `programs`, where bin and lib are.
#
# Our programs look into ../lib by themselves, so that LD_LIBRARY_PATH, which other programs of this
# machine heed too, names folders of CUDA and MPI only.
bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bundle_fail() {
  echo "tmd: $*" >&2
  exit 2
}

bundle_check_machine() {
  local glibc
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)
  [ "$(printf '%s\n' 2.36 "${glibc:-0}" | sort -V | head -n 1)" = 2.36 ] ||
    bundle_fail "this machine has glibc '${glibc:-none}', expected 2.36 or later"
  grep -qw avx2 /proc/cpuinfo 2>/dev/null || bundle_fail "this processor has no AVX2"
}

# Into the bundle if one may write there, otherwise into a temporary folder that later calls use, too.
bundle_unpack() {
  local archive=$bundle/programs.tar.gz partial
  programs=$bundle/programs
  [ -w "$bundle" ] || programs=${TMPDIR:-/tmp}/tmd-$(id -u)-$(cksum <"$archive" | cut -d' ' -f1)
  [ -d "$programs" ] && return
  partial=$(mktemp -d "$programs.XXXXXX") || bundle_fail "cannot write to ${programs%/*}"
  if ! gzip -dc "$archive" | tar -x -C "$partial"; then
    rm -rf "$partial"
    bundle_fail "cannot unpack $archive beside $programs"
  fi
  # whoever else unpacked it meanwhile has the same
  mv -T "$partial" "$programs" 2>/dev/null || rm -rf "$partial"
}

# Where CUDA's libraries may be, most telling first: what the user says, the toolkit, Python's packages.
bundle_cuda_folders() {
  local folder
  for folder in ${CUDA_HOME:+"$CUDA_HOME"} /usr/local/cuda /usr/local/cuda-*; do
    printf '%s\n' "$folder/lib64" "$folder/lib" "$folder/targets/x86_64-linux/lib"
  done
  local python='import sys; print("\n".join(p for p in sys.path if p))'
  { python3 -c "$python" 2>/dev/null || true; } | while read -r folder; do
    printf '%s\n' "$folder"/nvidia/*/lib
  done
}

# Folders for the libraries that the loader does not find by itself.
bundle_find_cuda() {
  local missing name folder folders
  missing=$(ldd "$programs/bin/tmd" | awk '/not found/ { print $1 }')
  mapfile -t folders < <(bundle_cuda_folders)
  for name in $missing; do
    for folder in "${folders[@]}"; do
      [ -e "$folder/$name" ] || continue
      case ":$LD_LIBRARY_PATH:" in
        *":$folder:"*) ;;
        *) LD_LIBRARY_PATH+=:$folder ;;
      esac
      break
    done
  done
  export LD_LIBRARY_PATH
  missing=$(ldd "$programs/bin/tmd" | awk '/not found/ { print $1 }' | sort -u | tr '\n' ' ')
  [ -z "$missing" ] || bundle_fail "not found on this machine: ${missing% };" \
    "looked where ldconfig knows, in \$CUDA_HOME, /usr/local/cuda* and python3's nvidia packages"
}

bundle_check_machine
bundle_unpack
LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$programs/lib/mpi
bundle_find_cuda
export PATH=$programs/bin:$PATH
# Open MPI: its plugins; ranks of this machine only; one alone starts no helper; in containers one is root
export OPAL_PKGLIBDIR=$programs/lib/openmpi OPAL_PKGDATADIR=$programs/share/openmpi
export PMIX_PKGLIBDIR=$programs/lib/pmix OMPI_MCA_plm=isolated OMPI_MCA_ess_singleton_isolated=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# the letters of plots and sheets, where the machine has no fonts
[ -e /etc/fonts/fonts.conf ] || export FONTCONFIG_FILE=$programs/share/fonts/fonts.conf
