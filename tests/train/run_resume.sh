#!/usr/bin/env bash
# Half a run, and the other half from its checkpoint, end in the same bits as the whole run: weights,
# moments, EMA, counters and losses, in every stage, on one rank and on two.  Saving on the way changes
# nothing either: the run that is not interrupted never saves.
. "$(dirname "$0")/run_lib.sh"
prepare

schedule=(optimizer.schedule=cosine optimizer.warmup=7 ema.decay=0.95)

both_halves() { # STAGE RANKS ITERATIONS [key=value ...]
    local half=$(($3 / 2)) name=$1-$2-$3
    stage_options "$1"
    local options=("${stage[@]}" "${schedule[@]}" "train.iterations=$3" "${@:4}")
    train "$2" "${options[@]}" "out=$name-whole"
    train "$2" "${options[@]}" "out=$name-halves" "checkpoint.every=$half"
    # as it was after the first half, but for metrics that a crash would have left
    rm "$(newest_checkpoint "$name-halves")"
    train "$2" "${options[@]}" "out=$name-halves" resume=auto
    check "$name resumed at $half" grep -q "at iteration $half\$" log
    check_same_run "$name in halves" "$name-whole" "$name-halves" "${groups[@]}"
}

groups_of() { # ROLE
    groups+=("$1/param" "$1/adam_m" "$1/adam_v")
}

for name in teacher kd stage1 stage2; do
    groups=()
    case $name in
    teacher) groups_of teacher && groups+=(teacher/ema) ;;
    kd | stage1) groups_of student && groups+=(student/ema) ;;
    stage2)
        for role in student fake discriminator; do groups_of $role; done
        groups+=(student/ema)
        ;;
    esac
    both_halves "$name" 1 "$(repeats 100)"
    both_halves "$name" 2 20
done
# the DMD2-v baseline has no flow head; without a weight for it there is no discriminator
groups=(student/param fake/param)
both_halves stage2 1 10 student.head_blocks=0 init.student= stage2.gan_weight=0

# the comparison can fail
check_not "another iteration is told apart" "$tools/compare_checkpoints" \
    "$(newest_checkpoint "teacher-1-$(repeats 100)-whole")" "$(newest_checkpoint teacher-2-20-whole)"
passed
