#!/usr/bin/env bash
# However a run ends, it can go on: SIGTERM and SIGUSR1 write a checkpoint and end with exit code 75;
# kill -9 at any moment, also while checkpoints are written, leaves a valid one; a damaged one is named and
# skipped.  Every run that went on ends in the same bits as one that nobody disturbed.
. "$(dirname "$0")/run_lib.sh"
prepare

lines_of() { # FILE
    if [ -f "$1" ]; then wc -l <"$1"; else echo 0; fi
}

# Starts `command` in the background as $pid, and waits until it has done LINES iterations.
start() { # RUN LINES
    "${command[@]}" >log 2>errors &
    pid=$!
    local deadline=$((SECONDS + 120))
    while [ "$(lines_of "$1/metrics.jsonl")" -lt "$2" ]; do
        kill -0 "$pid" 2>/dev/null || fail "$1 ended before it was disturbed"
        [ "$SECONDS" -lt "$deadline" ] || fail "$1 does not come on"
        sleep 0.02
    done
}

# The exit code of $pid in $code.
await() {
    code=0
    { wait "$pid" || code=$?; } 2>/dev/null # bash would tell of each killed job
}

# ---- signals ----

stage_options stage2
iterations=$(repeats 150)
options=("${stage[@]}" "train.iterations=$iterations" train.global_batch=4 ema.decay=0.95)
train 1 "${options[@]}" out=undisturbed-1
train 2 "${options[@]}" out=undisturbed-2

interrupted() { # RUN RANKS: after a signal to the run started by `start`
    await
    check "$1 ends with 75, not $code" test "$code" -eq 75
    check "$1 says so once" test "$(grep -c '^tmd: a signal came' errors)" -eq 1
    check "$1 has one checkpoint" test -f "$(newest_checkpoint "$1")"
    check "$1 ended early" test "$(lines_of "$1/metrics.jsonl")" -lt "$iterations"
    train "$2" "${options[@]}" "out=$1" resume=auto
    check_same_run "$1 went on" "undisturbed-$2" "$1"
}

for signal in TERM USR1; do
    command_of 1 "${options[@]}" "out=$signal"
    start "$signal" 10
    kill "-$signal" "$pid"
    interrupted "$signal" 1
done

# a signal that reaches one rank ends both after the same iteration
command_of 2 "${options[@]}" out=one-rank
start one-rank 10
kill -TERM "$(pgrep -P "$pid" -x tmd | tail -n 1)"
interrupted one-rank 2

# mpirun passes SIGUSR1 on to every rank
command_of 2 "${options[@]}" out=mpirun
start mpirun 10
kill -USR1 "$pid"
interrupted mpirun 2

# schedulers signal every rank, some of them again and again, also while the checkpoint is written
command_of 2 "${options[@]}" out=insistent checkpoint.zstd_level=19
start insistent 10
mapfile -t ranks < <(pgrep -P "$pid" -x tmd)
check "both ranks run" test "${#ranks[@]}" -eq 2
while kill -TERM "${ranks[@]}" 2>/dev/null; do sleep 0.005; done
interrupted insistent 2

# before the first iteration there is nothing to save, but a start that goes on must come
stage_options kd
command_of 2 "${stage[@]}" out=early kd.pairs=1000000
"${command[@]}" >log 2>errors &
pid=$!
until [ -n "$(find early/pairs -type f 2>/dev/null)" ]; do
    kill -0 "$pid" 2>/dev/null || fail "early ended before it was disturbed"
    sleep 0.02
done
kill -USR1 "$pid"
await
check "early ends with 75, not $code" test "$code" -eq 75
check "early says so once" test "$(grep -c '^tmd: a signal came before' errors)" -eq 1
check "early leaves no half-made pairs" test -z "$(find early/pairs -type f)"

# ---- kill -9 ----

options=("${stage[@]}" train.iterations=60 train.global_batch=2 checkpoint.every=1)
train 1 "${options[@]}" out=calm
attempts=$(repeats 20)
n_killed=0
RANDOM=1
for attempt in $(seq "$attempts"); do
    command_of 1 "${options[@]}" out=killed resume=auto
    "${command[@]}" >log 2>errors &
    pid=$!
    # from the start-up to a dozen iterations later, so that all of them rarely reach the end
    milliseconds=$((slowness * (50 + RANDOM % 250)))
    sleep "$((milliseconds / 1000)).$(printf %03d $((milliseconds % 1000)))"
    if kill -KILL "$pid" 2>/dev/null; then n_killed=$((n_killed + 1)); fi
    await
    check "attempt $attempt was killed or ended well, not $code" test "$code" -eq 137 -o "$code" -eq 0
done
check "enough attempts were killed" test "$n_killed" -ge "$((attempts / 4))"
train 1 "${options[@]}" out=killed resume=auto
check_same_run "killed $n_killed times" calm killed
check "nothing half-written is left" test -z "$(find killed -name '*partial*' -o -name '*.tmp*')"

# ---- damaged checkpoints ----

options=("${stage[@]}" train.iterations=20 checkpoint.every=5)
train 1 "${options[@]}" out=intact
for damage in flip_bytes cut_short empty; do
    cp -r intact "$damage"
    newest=$(newest_checkpoint "$damage")
    "$damage" "$newest"
    train 1 "${options[@]}" "out=$damage" resume=auto
    check "$damage: the damaged file is named" grep -q "^tmd: skipping.*$newest" log
    check "$damage: the one before is taken" grep -q 'at iteration 15$' log
    check_same_run "$damage" intact "$damage"
done

# all damaged: the run must not begin anew over them
for file in flip_bytes/checkpoints/step-*.h5; do cut_short "$file"; done
train_expecting 2 1 "${options[@]}" out=flip_bytes resume=auto
check "ruins are not overwritten" grep -q 'flip_bytes/checkpoints' errors
passed
