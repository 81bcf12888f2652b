# Common to the run tests.  Each is called as
#     run_NAME.sh TMD MPIRUN TOOLS
# with the program under test, mpirun, and the folder of make_dataset and the comparers; it sources this
# file, works in a scratch folder, and ends with `passed`.
set -euo pipefail

tmd=$1 mpirun=$2 tools=$3
small=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/small.yaml
scratch=$(mktemp -d)
n_checks=0

finish() {
    local job
    for job in $(jobs -p); do kill -KILL "$job" 2>/dev/null || true; done
    wait
    rm -rf "$scratch"
}
trap finish EXIT
cd "$scratch"

# Many ranks on few processors: one thread each, which does not spin while it waits.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# How many times slower than usual the program is: more than once in a sanitizer build, where what
# repeats is done half as often.
slowness=${TMD_SLOWNESS:-1}

repeats() { # COUNT
    if [ "$slowness" -gt 1 ]; then echo $(($1 / 2)); else echo "$1"; fi
}

fail() {
    echo "FAILED: $*" >&2
    tail -n 20 log errors >&2 2>/dev/null || true
    exit 1
}

passed() {
    [ "$n_checks" -gt 0 ] || fail "nothing was checked"
    echo "$n_checks checks passed"
}

check() { # DESCRIPTION COMMAND...
    local description=$1
    shift
    "$@" >&2 || fail "$description: $*"
    n_checks=$((n_checks + 1))
}

check_not() { # DESCRIPTION COMMAND...
    local description=$1
    shift
    ! "$@" >/dev/null 2>&1 || fail "$description: $*"
    n_checks=$((n_checks + 1))
}

# For runs on CUDA devices: `prepare`, and the options of a device in either precision.
prepare_cuda() {
    export TMD_CACHE_DIR=$scratch/cache TMD_EMULATED_STRICT=1
    prepare
    cuda=(device.backend=cuda device.deterministic=true device.tune_gemm=false)
    f32=("${cuda[@]}" device.precision=f32)
    bf16=("${cuda[@]}" device.precision=bf16)
}

# The command line of a run on RANKS ranks, as the array `command`.
command_of() { # RANKS [key=value ...]
    command=("$tmd" train "$small" "data.files=[clips.h5]" "${@:2}")
    [ "$1" -eq 1 ] || command=("$mpirun" --oversubscribe --bind-to none -np "$1" "${command[@]}")
}

# Runs to the end; what it prints is in `log`.
train() { # RANKS [key=value ...]
    local command
    command_of "$@"
    "${command[@]}" >log 2>&1 || fail "exit code $? of: ${command[*]}"
}

# Runs, expecting the exit code CODE; stdout is in `log`, stderr in `errors`.
train_expecting() { # CODE RANKS [key=value ...]
    local command code=0
    command_of "${@:2}"
    "${command[@]}" >log 2>errors || code=$?
    [ "$code" -eq "$1" ] || fail "exit code $code, not $1, of: ${command[*]}"
}

newest_checkpoint() { # RUN
    find "$1/checkpoints" -name 'step-*.h5' | sort | tail -n 1
}

# The state that two runs ended in is the same, bit for bit, and so are the losses on the way.  The
# GROUPs of tensors must be part of it.
check_same_run() { # DESCRIPTION RUN RUN [GROUP ...]
    check "$1" "$tools/compare_checkpoints" "$(newest_checkpoint "$2")" "$(newest_checkpoint "$3")" "${@:4}"
    check "$1" "$tools/compare_metrics" "$2/metrics.jsonl" "$3/metrics.jsonl" 0 0
}

# A dataset, a teacher and a student of stage one that the stages start from.  The teacher must have
# learned to heed the text: stage two begins with the difference that guidance makes, which otherwise
# would be rounding.
prepare() {
    "$tools/make_dataset" clips.h5 24 3
    train 1 train.stage=teacher out=teacher train.iterations=100 ema.decay=0.9 optimizer.lr=0.01
    train 1 train.stage=stage1 out=student train.iterations=10 init.teacher=teacher
}

# What STAGE needs besides the small configuration, as the array `stage`.
stage_options() { # STAGE
    stage=("train.stage=$1")
    case $1 in
    kd | stage1) stage+=(init.teacher=teacher) ;;
    # the paper's rate: a faster discriminator magnifies rounding at the kinks of its leaky ReLUs
    stage2) stage+=(init.teacher=teacher init.student=student optimizer.lr=1e-5) ;;
    esac
}

# ---- damage to files ----

flip_bytes() { # FILE: in its middle
    local at=$(($(stat -c %s "$1") / 2))
    printf '\xa5\x5a\xa5\x5a\xa5\x5a\xa5\x5a' | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
}

cut_short() {
    truncate -s "$(($(stat -c %s "$1") * 2 / 3))" "$1"
}

empty() {
    : >"$1"
}
