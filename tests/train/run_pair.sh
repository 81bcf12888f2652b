# Two ranks to which something happens, for the run tests that source it.  They are started in one of the
# WAYs: `mpi`; `tcp` and `file`, where each is a process of its own and nobody looks after the others.
. "$(dirname "${BASH_SOURCE[0]}")/run_lib.sh"

free_port() { # bash can only connect: a port that refuses is free
    local port
    while port=$((20000 + RANDOM % 40000)) && (: </dev/tcp/127.0.0.1/$port) 2>/dev/null; do :; done
    echo "$port"
}

# Starts a run in the background.  Its processes are `jobs_of_pair`, the ranks among them `ranks`; what they
# say on stderr is in errors*.
start_pair() { # WAY [key=value ...]
    local command rank place deadline=$((SECONDS + 60))
    rm -f errors*
    case $1 in
    mpi)
        command_of 2 "${@:2}"
        "${command[@]}" >log 2>errors &
        jobs_of_pair=($!)
        ranks=()
        while [ "${#ranks[@]}" -lt 2 ]; do
            [ "$SECONDS" -lt "$deadline" ] && kill -0 "${jobs_of_pair[0]}" || fail "no ranks started"
            mapfile -t ranks < <(pgrep -P "${jobs_of_pair[0]}" -x tmd)
        done
        jobs_of_pair+=("${ranks[@]}")
        return
        ;;
    tcp) place=tcp://127.0.0.1:$(free_port) ;;
    file) place=file://$scratch/meeting ;;
    esac
    command_of 1 "${@:2}"
    ranks=()
    for rank in 0 1; do
        TMD_RENDEZVOUS=$place TMD_RENDEZVOUS_SECONDS=10 TMD_RANK=$rank TMD_WORLD_SIZE=2 \
            "${command[@]}" >"log-$rank" 2>"errors-$rank" &
        ranks+=($!)
    done
    jobs_of_pair=("${ranks[@]}")
}

n_alive() { # PID...
    local pid n=0
    for pid; do if kill -0 "$pid" 2>/dev/null; then n=$((n + 1)); fi; done
    echo "$n"
}

# Waits until at most LEFT of the pair's processes are there; their exit codes are in `codes`.
await_pair() { # SECONDS LEFT
    local pid code deadline=$((SECONDS + $1))
    exec 3>&2 2>/dev/null # where bash would tell of each killed job
    while [ "$(n_alive "${jobs_of_pair[@]}")" -gt "$2" ] && [ "$SECONDS" -le "$deadline" ]; do
        sleep 0.05
    done
    codes=()
    for pid in "${jobs_of_pair[@]}"; do
        code=0
        if [ "$(n_alive "$pid")" -gt 0 ]; then continue; fi
        wait "$pid" || code=$?
        codes+=("$code") # 127: a rank of mpirun's, not ours to ask
    done
    exec 2>&3 3>&-
    [ "$(n_alive "${jobs_of_pair[@]}")" -le "$2" ] ||
        fail "after $1 s there are still: $(ps -o pid,stat,args -p "${jobs_of_pair[*]}")"
}

await_iterations() { # RUN COUNT
    local deadline=$((SECONDS + 120))
    until [ -f "$1/metrics.jsonl" ] && [ "$(wc -l <"$1/metrics.jsonl")" -ge "$2" ]; do
        [ "$(n_alive "${jobs_of_pair[@]}")" -gt 0 ] || fail "$1 ended before it was disturbed"
        [ "$SECONDS" -lt "$deadline" ] || fail "$1 does not come on"
        sleep 0.02
    done
}

# Waits until other names match PATTERN than now, and looks without a pause.
await_change() { # PATTERN
    local before now deadline=$((SECONDS + 120))
    shopt -s nullglob
    # shellcheck disable=SC2206
    before=($1) now=($1)
    while [ "${now[*]}" = "${before[*]}" ]; do
        kill -0 "${jobs_of_pair[0]}" 2>/dev/null || fail "ended before anything happened to $1"
        [ "$SECONDS" -lt "$deadline" ] || fail "nothing happens to $1"
        # shellcheck disable=SC2206
        now=($1)
    done
    shopt -u nullglob
}

# Every folder of shards belongs to a checkpoint, and nothing was left half-written.
check_no_leftovers() { # RUN
    local shards
    check "$1: nothing half-written is left" test -z "$(find "$1" -name '*partial*' -o -name '*.tmp*')"
    for shards in "$1"/checkpoints/*.shards-*; do
        if [ -e "$shards" ]; then check "$shards has its checkpoint" test -f "${shards%.shards-*}.h5"; fi
    done
}
