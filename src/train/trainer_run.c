/* The training loop.  An iteration takes the loader's batch, runs a pass for each micro-batch of
 * it, sums gradients and losses over ranks, updates the weights unless something is not finite, and
 * now and then saves a checkpoint or draws a preview.  Whatever decides what happens next (a loss
 * that is not finite, a signal, a save that is done) is summed over ranks first, so that all decide
 * alike. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/optimizer.h"
#include "train/run_signals.h"
#include "train/step_dump.h"
#include "train/trainer.h"

/* What is summed over ranks in every iteration, beside the gradients. */
struct RankSums {
    double scalars[STEP_MAX_SCALARS]; /* losses */
    double interrupted;               /* ranks that a signal has reached */
    double saving;                    /* ranks that still write a checkpoint */
};
enum { RANK_SUMS_DOUBLES = sizeof(struct RankSums) / sizeof(double) };

/* The samples of the pass that begins with this rank's sample `at`. */
static struct BatchSamples samples_at(const struct Trainer *t, const struct Batch *batch, int64_t at) {
    const struct Networks *nets = &t->learner.nets;
    int64_t left = t->n_local - at, capacity = t->learner.batch.capacity;
    return (struct BatchSamples){.iteration = batch->iteration,
                                 .first = t->first_in_batch + at,
                                 .n = left < capacity ? left : capacity,
                                 .video = batch->video + at * networks_latent_elems(nets),
                                 .text = batch->text + at * networks_text_elems(nets),
                                 .indices = batch->samples + at};
}

/* The samples of the pass after the one that ends before sample `end`: of this iteration or, if the
 * loader has read them already, of the next one. */
static struct BatchSamples samples_after(const struct Trainer *t, const struct Batch *batch,
                                          int64_t end) {
    struct Batch next;
    if (end < t->n_local) return samples_at(t, batch, end);
    return loader_peek(t->loader, &next) ? samples_at(t, &next, 0) : (struct BatchSamples){0};
}

/* Runs the pass that begins with this rank's sample `at`; its results are in the arena.
 * `all_outputs`: for a dump, which runs a pass again and drops its gradients. */
static struct StepContext run_pass(struct Trainer *t, enum StepKind kind, const struct Batch *batch,
                                   int64_t at, bool all_outputs, struct StepInputs *in,
                                   struct StepResult *result) {
    struct LearnerPass pass = {.samples = samples_at(t, batch, at), .all_outputs = all_outputs};
    int64_t end = at + pass.samples.n;
    if (!all_outputs) {
        pass.next = samples_after(t, batch, end);
        pass.last = end == t->n_local;
    }
    return learner_pass(&t->learner, kind, &pass, in, result);
}

/* All passes of this rank's samples; adds their losses to `sums`. */
static void run_passes(struct Trainer *t, const struct Batch *batch, struct IterationReport *report,
                       struct RankSums *sums) {
    struct Arena *arena = &t->learner.arena;
    for (int64_t at = 0; at < t->n_local; at += t->learner.batch.capacity) {
        struct StepInputs in;
        struct StepResult result;
        struct StepScalar scalars[STEP_MAX_SCALARS];
        int64_t mark = arena_mark(arena);
        struct StepContext ctx = run_pass(t, report->kind, batch, at, false, &in, &result);
        report->n_scalars = step_scalars(&ctx, &result, scalars);
        for (int i = 0; i < report->n_scalars; i++) {
            report->scalars[i].name = scalars[i].name;
            sums->scalars[i] += scalars[i].value;
        }
        arena_release(arena, mark);
        watchdog_alive(t->watchdog);
    }
}

static bool pass_is_finite(const struct StepContext *ctx, const struct StepResult *result) {
    struct StepScalar scalars[STEP_MAX_SCALARS];
    int n = step_scalars(ctx, result, scalars);
    for (int i = 0; i < n; i++)
        if (!isfinite(scalars[i].value)) return false;
    return true;
}

static void write_step(const struct Trainer *t, const struct StepContext *ctx,
                       const struct StepInputs *in, const struct StepResult *result) {
    struct Error err;
    char *folder = xprintf("%s/replay-%08lld-rank%d", t->config->out, (long long)t->state.iteration,
                           t->comm->rank);
    if (!step_dump(ctx, in, result, folder, &err)) comm_fail(t->comm, &err);
    fprintf(stderr, "tmd: wrote the step of iteration %lld to %s; `tmd replay` gives it again\n",
            (long long)t->state.iteration, folder);
    free(folder);
}

/* The first sample of this rank's first pass whose loss is not finite, or 0 if there is none.
 * Ranks that must run the same passes (`together`) run all of them. */
static int64_t find_broken_pass(struct Trainer *t, enum StepKind kind, const struct Batch *batch,
                                bool together) {
    struct Arena *arena = &t->learner.arena;
    int64_t mark = arena_mark(arena), broken = -1;
    for (int64_t at = 0; at < t->n_local; at += t->learner.batch.capacity) {
        struct StepInputs in;
        struct StepResult result;
        struct StepContext ctx = run_pass(t, kind, batch, at, true, &in, &result);
        if (broken < 0 && !pass_is_finite(&ctx, &result)) broken = at;
        arena_release(arena, mark);
        if (broken >= 0 && !together) break;
    }
    return broken < 0 ? 0 : broken;
}

/* Runs this iteration's passes again and writes one of them as a replay case: the first whose loss
 * is not finite, else the first.  The gradients are worthless afterwards.
 *
 * `wanted`: this rank's pass is to be written.  Ranks that share a sample's tokens want it
 * together, and the first of them writes.  Ranks that hold shares of the weights all take part. */
static void dump_step(struct Trainer *t, enum StepKind kind, const struct Batch *batch, bool wanted) {
    bool together = t->learner.ring != NULL;
    struct Arena *arena = &t->learner.arena;
    struct StepInputs in;
    struct StepResult result;
    if (!wanted && !together) return;
    learner_begin_outside(&t->learner);
    int64_t mark = arena_mark(arena), chosen = find_broken_pass(t, kind, batch, together);
    struct StepContext ctx = run_pass(t, kind, batch, chosen, true, &in, &result);
    if (wanted && t->grid.part == 0)
        write_step(t, &ctx, &in, &result);
    else if (together)
        step_dump_help(&ctx, kind);
    arena_release(arena, mark);
}

static bool losses_finite(const double *losses, int n) {
    for (int i = 0; i < n; i++)
        if (!isfinite(losses[i])) return false;
    return true;
}

/* Afterwards gradients and `sums` are those of the whole batch, on every rank. */
static void sum_over_ranks(struct Trainer *t, enum StepKind kind, struct RankSums *sums) {
    learner_sum(&t->learner, kind);
    sums->interrupted = run_signals_arrived();
    sums->saving = run_saver_busy(t->saver);
    t->comm->sum_f64(t->comm, (double *)sums, RANK_SUMS_DOUBLES);
}

/* Fills the report with losses and gradient norms of the whole batch; false if any is not finite. */
static bool all_finite(struct Trainer *t, struct IterationReport *report,
                       const struct RankSums *sums) {
    bool finite = losses_finite(sums->scalars, report->n_scalars);
    for (int i = 0; i < report->n_scalars; i++) report->scalars[i].value = sums->scalars[i];
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(&t->learner, report->kind, (enum Role)role)) continue;
        report->grad_norm[role] = learner_gradient_norm(&t->learner, (enum Role)role);
        report->lr[role] = learning_rate(t->config, (enum Role)role, report->iteration);
        if (!isfinite(report->grad_norm[role])) finite = false;
    }
    return finite;
}

static void update(struct Trainer *t, const struct IterationReport *report) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (learner_trains(&t->learner, report->kind, (enum Role)role))
            learner_update(&t->learner, (enum Role)role, report->iteration,
                           ++t->state.updates[role], report->grad_norm[role]);
    t->state.skipped_in_row = 0;
}

/* Counts an iteration that is not finite, in place of its update.  The first one in a row is
 * written as a replay case: by data rank 0, and by ranks whose own losses are not finite. */
static void skip(struct Trainer *t, enum StepKind kind, const struct Batch *batch,
                 bool own_losses_finite) {
    if (!t->state.skipped_in_row)
        dump_step(t, kind, batch, !own_losses_finite || t->grid.data_rank == 0);
    t->state.skipped++;
    t->state.skipped_in_row++;
}

/* Begins a save, once the one before it is complete.  False: that one has failed. */
static bool save(struct Trainer *t, int *exit_code) {
    if (!run_saver_finish(t->saver, exit_code)) return false;
    run_saver_begin(t->saver, &t->state);
    return true;
}

/* Completes the save that is under way, if every rank has written its part by now, and begins one
 * if it is due.  False: a save has failed. */
static bool save_if_due(struct Trainer *t, const struct RankSums *sums, int *exit_code) {
    int64_t every = t->config->checkpoint.every;
    bool last = t->state.iteration == t->config->train.iterations;
    bool due = sums->interrupted > 0.0 || last || (every && t->state.iteration % every == 0);
    if (sums->saving == 0.0 && !run_saver_finish(t->saver, exit_code)) return false;
    return !due || save(t, exit_code);
}

/* A preview that cannot be written is reported, but no reason to lose a run. */
static void preview(struct Trainer *t) {
    struct Learner *l = &t->learner;
    struct Error err;
    if (!preview_has_part(&t->grid) || !preview_due(t->config, t->state.iteration)) return;
    learner_begin_outside(l);
    learner_swap_average(l);
    if (!preview_write(&t->preview, &l->nets, &l->arena, t->state.iteration, t->comm->rank == 0, &err))
        error_report(&err);
    learner_swap_average(l);
}

/* Books the time of a phase, and enters the next one.  Time that an update waited for a save's copy
 * is booked on the save. */
static void end_phase(struct Trainer *t, struct PhaseTimer *timer, enum Phase phase) {
    phase_timer_end(timer, phase);
    phase_timer_move(timer, phase, PHASE_SAVE, learner_take_copy_wait(&t->learner));
    watchdog_enter(t->watchdog, (enum Phase)((phase + 1) % PHASE_COUNT));
}

/* One iteration.  *interrupted: a signal has reached some rank.  False: a save has failed. */
static bool iterate(struct Trainer *t, bool *interrupted, int *exit_code) {
    struct IterationReport report = {.iteration = t->state.iteration,
                                     .kind = step_kind_at(t->config, t->state.iteration),
                                     .samples = t->config->train.global_batch,
                                     .memory_bytes = t->memory_bytes};
    struct RankSums sums = {0};
    struct Batch batch;
    struct Error err;
    int64_t sent_before = parallel_sent_bytes(&t->parallel);
    phase_timer_begin(&report.timer);
    if (!loader_next(t->loader, &batch, &err)) comm_fail(t->comm, &err);
    end_phase(t, &report.timer, PHASE_DATA);
    if (t->state.iteration == t->config->train.dump_at)
        dump_step(t, report.kind, &batch, t->grid.data_rank == 0);
    learner_begin(&t->learner, report.kind);
    run_passes(t, &batch, &report, &sums);
    bool own_losses_finite = losses_finite(sums.scalars, report.n_scalars);
    end_phase(t, &report.timer, PHASE_COMPUTE);
    sum_over_ranks(t, report.kind, &sums);
    *interrupted = sums.interrupted > 0.0;
    end_phase(t, &report.timer, PHASE_REDUCE);

    report.skipped = !all_finite(t, &report, &sums);
    if (report.skipped)
        skip(t, report.kind, &batch, own_losses_finite);
    else
        update(t, &report);
    t->state.iteration++;
    end_phase(t, &report.timer, PHASE_UPDATE);

    bool saved = save_if_due(t, &sums, exit_code);
    end_phase(t, &report.timer, PHASE_SAVE);
    if (!saved) return false;
    if (!*interrupted) preview(t);
    end_phase(t, &report.timer, PHASE_PREVIEW);
    report.sent_bytes = parallel_sent_bytes(&t->parallel) - sent_before;
    report.learned = t->be->learned(t->be);
    if (t->comm->rank == 0 && !metrics_report(&t->metrics, &report, &err)) comm_fail(t->comm, &err);
    return true;
}

/* The exit code if the run has to end early, else EXIT_OK. */
static int reason_to_end(const struct Trainer *t, bool interrupted) {
    if (t->state.skipped_in_row > t->config->train.max_skipped) return EXIT_DIVERGED;
    return interrupted ? EXIT_INTERRUPTED : EXIT_OK;
}

static void say_why(const struct Trainer *t, int exit_code) {
    if (exit_code == EXIT_DIVERGED)
        fprintf(stderr, "tmd: %lld steps in a row were not finite (train.max_skipped is %lld)\n",
                (long long)t->state.skipped_in_row, (long long)t->config->train.max_skipped);
    if (exit_code == EXIT_INTERRUPTED)
        fprintf(stderr, "tmd: a signal came: wrote the checkpoint of iteration %lld; go on with "
                        "resume=auto\n", (long long)t->state.iteration);
}

int trainer_run(struct Trainer *t) {
    int exit_code = EXIT_OK, failure;
    watchdog_enter(t->watchdog, PHASE_DATA);
    while (exit_code == EXIT_OK && t->state.iteration < t->config->train.iterations) {
        bool interrupted;
        if (!iterate(t, &interrupted, &failure)) return failure;
        exit_code = reason_to_end(t, interrupted);
    }
    watchdog_enter(t->watchdog, PHASE_SAVE);
    if (!run_saver_finish(t->saver, &failure)) return failure;
    if (t->comm->rank == 0) say_why(t, exit_code);
    return exit_code;
}
