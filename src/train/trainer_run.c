/* The loop. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/optimizer.h"
#include "train/run_signals.h"
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

/* All passes of this rank's samples; leaves summed losses in `shared`. */
static void run_passes(struct Trainer *t, enum StepKind kind, const struct Batch *batch,
                       struct IterationReport *report, struct Shared *shared) {
    const struct Config *config = t->config;
    int64_t n_video = networks_latent_elems(&t->nets), n_text = networks_text_elems(&t->nets);
    struct StepContext ctx = {.nets = &t->nets,
                              .arena = &t->arena,
                              .tapes = t->tapes,
                              .sample_weight = 1.0 / (double)config->train.global_batch};
    for (int64_t at = 0; at < t->n_local; at += t->batch.capacity) {
        struct StepInputs in;
        struct StepResult result;
        struct StepScalar scalars[STEP_MAX_SCALARS];
        int64_t left = t->n_local - at;
        in.batch = left < t->batch.capacity ? left : t->batch.capacity;
        ctx.last = left <= t->batch.capacity;
        batch_fill(&t->batch, kind, t->state.iteration, t->first_in_batch + at,
                   batch->video + at * n_video, batch->text + at * n_text, &in);
        int64_t mark = arena_mark(&t->arena);
        step_run(&ctx, kind, &in, &result);
        report->n_scalars = step_scalars(&ctx, &result, scalars);
        for (int i = 0; i < report->n_scalars; i++) {
            report->scalars[i].name = scalars[i].name;
            shared->scalars[i] += scalars[i].value;
        }
        arena_release(&t->arena, mark);
    }
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
    bool finite = true;
    for (int i = 0; i < report->n_scalars; i++) {
        report->scalars[i].value = shared->scalars[i];
        if (!isfinite(shared->scalars[i])) finite = false;
    }
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
    zero_gradients(t, report.kind);
    run_passes(t, report.kind, &batch, &report, &shared);
    phase_timer_end(&report.timer, PHASE_COMPUTE);
    sum_over_ranks(t, report.kind, &shared);
    *interrupted = shared.interrupted > 0.0;
    phase_timer_end(&report.timer, PHASE_REDUCE);

    report.skipped = !all_finite(t, &report, &shared);
    if (report.skipped) {
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
