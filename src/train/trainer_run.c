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
    double scalars[STEP_MAX_SCALARS], interrupted;
};
enum { SHARED_DOUBLES = sizeof(struct Shared) / sizeof(double) };

static void zero_gradients(struct Trainer *t, enum StepKind kind) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct Weights *w = &t->nets.weights[role];
        if (!t->nets.plan.trained[role] || !step_trains(kind, (enum Role)role)) continue;
        t->be->zero(t->be, w->grad, w->table->n_elems * (int64_t)sizeof(float));
        grad_sync_begin(&t->syncs[role]);
    }
}

static struct StepContext step_context(struct Trainer *t, bool last) {
    return (struct StepContext){.nets = &t->nets,
                                .arena = &t->arena,
                                .tapes = t->tapes,
                                .sample_weight = 1.0 / (double)t->config->train.global_batch,
                                .last = last};
}

/* The pass that begins with this rank's sample `at`; its results are in the arena. */
static void run_pass(struct Trainer *t, const struct StepContext *ctx, enum StepKind kind,
                     const struct Batch *batch, int64_t at, struct StepInputs *in,
                     struct StepResult *result) {
    int64_t n_video = networks_latent_elems(&t->nets), n_text = networks_text_elems(&t->nets);
    int64_t left = t->n_local - at;
    *in = (struct StepInputs){0};
    in->batch = left < t->batch.capacity ? left : t->batch.capacity;
    batch_fill(&t->batch, kind, t->state.iteration, t->first_in_batch + at,
               batch->video + at * n_video, batch->text + at * n_text, batch->samples + at, in);
    step_run(ctx, kind, in, result);
}

/* All passes of this rank's samples; leaves summed losses in `shared`. */
static void run_passes(struct Trainer *t, const struct Batch *batch, struct IterationReport *report,
                       struct Shared *shared) {
    for (int64_t at = 0; at < t->n_local; at += t->batch.capacity) {
        struct StepInputs in;
        struct StepResult result;
        struct StepScalar scalars[STEP_MAX_SCALARS];
        struct StepContext ctx = step_context(t, t->n_local - at <= t->batch.capacity);
        int64_t mark = arena_mark(&t->arena);
        run_pass(t, &ctx, report->kind, batch, at, &in, &result);
        report->n_scalars = step_scalars(&ctx, &result, scalars);
        for (int i = 0; i < report->n_scalars; i++) {
            report->scalars[i].name = scalars[i].name;
            shared->scalars[i] += scalars[i].value;
        }
        arena_release(&t->arena, mark);
    }
}

static bool pass_is_finite(const struct StepContext *ctx, const struct StepResult *result) {
    struct StepScalar scalars[STEP_MAX_SCALARS];
    int n = step_scalars(ctx, result, scalars);
    for (int i = 0; i < n; i++)
        if (!isfinite(scalars[i].value)) return false;
    return true;
}

/* Runs this iteration's passes again and writes one as a replay case: the first whose loss is not
 * finite, else the first.  Spoils the gradients. */
static void dump_step(struct Trainer *t, enum StepKind kind, const struct Batch *batch) {
    struct StepContext ctx = step_context(t, false);
    int64_t mark = arena_mark(&t->arena), chosen = 0;
    struct StepInputs in;
    struct StepResult result;
    struct Error err;
    for (int64_t at = 0; at < t->n_local; at += t->batch.capacity) {
        run_pass(t, &ctx, kind, batch, at, &in, &result);
        bool finite = pass_is_finite(&ctx, &result);
        arena_release(&t->arena, mark);
        if (finite) continue;
        chosen = at;
        break;
    }
    run_pass(t, &ctx, kind, batch, chosen, &in, &result);
    char *folder = xprintf("%s/replay-%08lld-rank%d", t->config->out, (long long)t->state.iteration,
                           t->comm->rank);
    if (!step_dump(&ctx, &in, &result, folder, &err)) comm_fail(t->comm, &err);
    fprintf(stderr, "tmd: wrote the step of iteration %lld to %s; `tmd replay` gives it again\n",
            (long long)t->state.iteration, folder);
    free(folder);
    arena_release(&t->arena, mark);
}

static bool losses_finite(const double *losses, int n) {
    for (int i = 0; i < n; i++)
        if (!isfinite(losses[i])) return false;
    return true;
}

/* After it, gradients and `shared` are those of the whole batch, on every rank. */
static void sum_over_ranks(struct Trainer *t, enum StepKind kind, struct Shared *shared) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (t->nets.plan.trained[role] && step_trains(kind, (enum Role)role))
            grad_sync_rest(&t->syncs[role]);
    t->comm->sums_finish(t->comm);
    shared->interrupted = run_signals_arrived();
    t->comm->sum_f64(t->comm, (double *)shared, SHARED_DOUBLES);
}

/* Norms of the summed gradients; false if anything is not finite. */
static bool all_finite(struct Trainer *t, struct IterationReport *report, const struct Shared *shared) {
    bool finite = losses_finite(shared->scalars, report->n_scalars);
    for (int i = 0; i < report->n_scalars; i++) report->scalars[i].value = shared->scalars[i];
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!t->nets.plan.trained[role] || !step_trains(report->kind, (enum Role)role)) continue;
        report->grad_norm[role] = gradient_norm(&t->nets.weights[role], t->scratch);
        report->lr[role] = learning_rate(t->config, (enum Role)role, report->iteration);
        if (!isfinite(report->grad_norm[role])) finite = false;
    }
    return finite;
}

static void update(struct Trainer *t, const struct IterationReport *report) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (t->nets.plan.trained[role] && step_trains(report->kind, (enum Role)role))
            optimizer_update(t->config, &t->nets.weights[role], (enum Role)role, report->iteration,
                             ++t->state.updates[role], report->grad_norm[role]);
}

static void save(struct Trainer *t) {
    struct Error err;
    if (t->comm->rank == 0 && !run_state_save(&t->state, &t->nets, &err)) comm_fail(t->comm, &err);
}

/* A preview that cannot be written is reported, but no reason to lose a run. */
static void preview(struct Trainer *t) {
    struct Error err;
    if (t->comm->rank || !preview_due(t->config, t->state.iteration)) return;
    if (!preview_write(&t->preview, &t->nets, &t->arena, t->state.iteration, &err))
        error_report(&err);
}

/* One iteration; *interrupted: a signal has reached some rank. */
static void iterate(struct Trainer *t, bool *interrupted) {
    struct IterationReport report = {.iteration = t->state.iteration,
                                     .kind = step_kind_at(t->config, t->state.iteration),
                                     .samples = t->config->train.global_batch,
                                     .memory_bytes = t->memory_bytes};
    struct Shared shared = {0};
    struct Batch batch;
    struct Error err;
    phase_timer_begin(&report.timer);
    if (!loader_next(t->loader, &batch, &err)) comm_fail(t->comm, &err);
    phase_timer_end(&report.timer, PHASE_DATA);
    if (t->state.iteration == t->config->train.dump_at && t->comm->rank == 0)
        dump_step(t, report.kind, &batch);
    zero_gradients(t, report.kind);
    run_passes(t, &batch, &report, &shared);
    bool local_finite = losses_finite(shared.scalars, report.n_scalars);
    phase_timer_end(&report.timer, PHASE_COMPUTE);
    sum_over_ranks(t, report.kind, &shared);
    *interrupted = shared.interrupted > 0.0;
    phase_timer_end(&report.timer, PHASE_REDUCE);

    report.skipped = !all_finite(t, &report, &shared);
    if (report.skipped) {
        if (!t->state.skipped_in_row && (!local_finite || t->comm->rank == 0))
            dump_step(t, report.kind, &batch);
        t->state.skipped++;
        t->state.skipped_in_row++;
    } else {
        update(t, &report);
        t->state.skipped_in_row = 0;
    }
    t->state.iteration++;
    phase_timer_end(&report.timer, PHASE_UPDATE);

    int64_t every = t->config->checkpoint.every;
    bool last = t->state.iteration == t->config->train.iterations;
    if (*interrupted || last || (every && t->state.iteration % every == 0)) save(t);
    phase_timer_end(&report.timer, PHASE_SAVE);
    if (!*interrupted) preview(t);
    phase_timer_end(&report.timer, PHASE_PREVIEW);
    if (t->comm->rank == 0 && !metrics_report(&t->metrics, &report, &err)) comm_fail(t->comm, &err);
}

int trainer_run(struct Trainer *t) {
    run_signals_install();
    while (t->state.iteration < t->config->train.iterations) {
        bool interrupted;
        iterate(t, &interrupted);
        if (t->state.skipped_in_row > t->config->train.max_skipped) {
            if (t->comm->rank == 0)
                fprintf(stderr, "tmd: %lld steps in a row were not finite (train.max_skipped is %lld)\n",
                        (long long)t->state.skipped_in_row, (long long)t->config->train.max_skipped);
            return EXIT_DIVERGED;
        }
        if (interrupted) {
            if (t->comm->rank == 0)
                fprintf(stderr, "tmd: a signal came: wrote the checkpoint of iteration %lld; go on "
                                "with resume=auto\n", (long long)t->state.iteration);
            return EXIT_INTERRUPTED;
        }
    }
    return EXIT_OK;
}
