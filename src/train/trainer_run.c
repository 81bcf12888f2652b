/* The loop. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/optimizer.h"
#include "train/run_signals.h"
#include "train/step_dump.h"
#include "train/trainer.h"

/* What ranks tell each other every iteration; summed. */
struct Shared {
    double scalars[STEP_MAX_SCALARS], interrupted, saving;
};
enum { SHARED_DOUBLES = sizeof(struct Shared) / sizeof(double) };

/* Those of the pass that begins with this rank's sample `at`. */
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

/* Those that come behind this rank's samples before `end`: of this iteration or, if they have been read
 * by now, of the next one. */
static struct BatchSamples samples_behind(const struct Trainer *t, const struct Batch *batch,
                                          int64_t end) {
    struct Batch next;
    if (end < t->n_local) return samples_at(t, batch, end);
    return loader_peek(t->loader, &next) ? samples_at(t, &next, 0) : (struct BatchSamples){0};
}

/* The pass that begins with this rank's sample `at`; its results are in the arena.  `all_outputs`: run
 * again for a dump, and nobody waits for its gradients. */
static struct StepContext run_pass(struct Trainer *t, enum StepKind kind, const struct Batch *batch,
                                   int64_t at, bool all_outputs, struct StepInputs *in,
                                   struct StepResult *result) {
    struct LearnerPass pass = {.samples = samples_at(t, batch, at), .all_outputs = all_outputs};
    int64_t end = at + pass.samples.n;
    if (!all_outputs) {
        pass.next = samples_behind(t, batch, end);
        pass.last = end == t->n_local;
    }
    return learner_pass(&t->learner, kind, &pass, in, result);
}

/* All passes of this rank's samples; leaves summed losses in `shared`. */
static void run_passes(struct Trainer *t, const struct Batch *batch, struct IterationReport *report,
                       struct Shared *shared) {
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
            shared->scalars[i] += scalars[i].value;
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

/* The first sample of this rank's first pass whose loss is not finite, else 0.  Where all ranks run
 * these passes `together` they run all of them. */
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

/* Runs this iteration's passes again and writes one as a replay case, on the ranks that want it: the
 * first whose loss is not finite, else the first.  Spoils the gradients.  Those that share these samples'
 * tokens want it together, and the first of them writes; all help that hold a share of the weights. */
static void dump_step(struct Trainer *t, enum StepKind kind, const struct Batch *batch, bool wanted) {
    bool together = t->learner.ring != NULL;
    struct Arena *arena = &t->learner.arena;
    struct StepInputs in;
    struct StepResult result;
    if (!wanted && !together) return;
    learner_aside(&t->learner);
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

/* After it, gradients and `shared` are those of the whole batch, on every rank. */
static void sum_over_ranks(struct Trainer *t, enum StepKind kind, struct Shared *shared) {
    learner_sum(&t->learner, kind);
    shared->interrupted = run_signals_arrived();
    shared->saving = run_saver_busy(t->saver);
    t->comm->sum_f64(t->comm, (double *)shared, SHARED_DOUBLES);
}

/* Norms of the summed gradients; false if anything is not finite. */
static bool all_finite(struct Trainer *t, struct IterationReport *report, const struct Shared *shared) {
    bool finite = losses_finite(shared->scalars, report->n_scalars);
    for (int i = 0; i < report->n_scalars; i++) report->scalars[i].value = shared->scalars[i];
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
}

/* Saves while the run goes on; the save before must be complete. */
static bool save(struct Trainer *t, int *exit_code) {
    if (!run_saver_finish(t->saver, exit_code)) return false;
    run_saver_begin(t->saver, &t->state);
    return true;
}

/* A preview that cannot be written is reported, but no reason to lose a run. */
static void preview(struct Trainer *t) {
    struct Learner *l = &t->learner;
    struct Error err;
    if (!preview_has_part(&t->grid) || !preview_due(t->config, t->state.iteration)) return;
    learner_aside(l);
    learner_swap_average(l);
    if (!preview_write(&t->preview, &l->nets, &l->arena, t->state.iteration, t->comm->rank == 0, &err))
        error_report(&err);
    learner_swap_average(l);
}

/* Books the time of a phase, and enters the one behind it.  What an update waited for a save's copy is
 * the save's. */
static void end_phase(struct Trainer *t, struct PhaseTimer *timer, enum Phase phase) {
    phase_timer_end(timer, phase);
    phase_timer_move(timer, phase, PHASE_SAVE, learner_take_held(&t->learner));
    watchdog_enter(t->watchdog, (enum Phase)((phase + 1) % PHASE_COUNT));
}

/* One iteration; *interrupted: a signal has reached some rank.  false: a save has failed. */
static bool iterate(struct Trainer *t, bool *interrupted, int *exit_code) {
    struct IterationReport report = {.iteration = t->state.iteration,
                                     .kind = step_kind_at(t->config, t->state.iteration),
                                     .samples = t->config->train.global_batch,
                                     .memory_bytes = t->memory_bytes};
    struct Shared shared = {0};
    struct Batch batch;
    struct Error err;
    int64_t sent_before = parallel_sent_bytes(&t->parallel);
    phase_timer_begin(&report.timer);
    if (!loader_next(t->loader, &batch, &err)) comm_fail(t->comm, &err);
    end_phase(t, &report.timer, PHASE_DATA);
    if (t->state.iteration == t->config->train.dump_at)
        dump_step(t, report.kind, &batch, t->grid.data_rank == 0);
    learner_begin(&t->learner, report.kind);
    run_passes(t, &batch, &report, &shared);
    bool local_finite = losses_finite(shared.scalars, report.n_scalars);
    end_phase(t, &report.timer, PHASE_COMPUTE);
    sum_over_ranks(t, report.kind, &shared);
    *interrupted = shared.interrupted > 0.0;
    end_phase(t, &report.timer, PHASE_REDUCE);

    report.skipped = !all_finite(t, &report, &shared);
    if (report.skipped) {
        if (!t->state.skipped_in_row)
            dump_step(t, report.kind, &batch, !local_finite || t->grid.data_rank == 0);
        t->state.skipped++;
        t->state.skipped_in_row++;
    } else {
        update(t, &report);
        t->state.skipped_in_row = 0;
    }
    t->state.iteration++;
    end_phase(t, &report.timer, PHASE_UPDATE);

    int64_t every = t->config->checkpoint.every;
    bool last = t->state.iteration == t->config->train.iterations;
    bool written = shared.saving > 0.0 || run_saver_finish(t->saver, exit_code);
    if (written && (*interrupted || last || (every && t->state.iteration % every == 0)))
        written = save(t, exit_code);
    end_phase(t, &report.timer, PHASE_SAVE);
    if (!written) return false;
    if (!*interrupted) preview(t);
    end_phase(t, &report.timer, PHASE_PREVIEW);
    report.sent_bytes = parallel_sent_bytes(&t->parallel) - sent_before;
    report.learned = t->be->learned(t->be);
    if (t->comm->rank == 0 && !metrics_report(&t->metrics, &report, &err)) comm_fail(t->comm, &err);
    return true;
}

/* EXIT_OK: the run goes on, or is complete. */
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
