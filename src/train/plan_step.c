#include "train/plan_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *plan_phase_name(enum PlanPhase phase) {
    static const char *const names[PLAN_PHASES] = {
        "zero gradients", "forward", "forward again, for backward", "backward",
        "wait for sums",  "update",  "wait for the slowest GPU"};
    return names[phase];
}

/* ---- sums of costs */

void plan_tally_add(struct OpTally *sum, struct OpTally more, int64_t n) {
    sum->calls += n * more.calls;
    sum->seconds += (double)n * more.seconds;
    sum->flops += (double)n * more.flops;
    sum->bytes += (double)n * more.bytes;
}

static void divide(struct OpTally *tally, int n) {
    tally->calls /= n;
    tally->seconds /= n;
    tally->flops /= n;
    tally->bytes /= n;
}

static void divide_step(struct PlanStep *step, int n) {
    for (int op = 0; op < OP_COUNT; op++) divide(&step->ops[op], n);
    for (int phase = 0; phase < PLAN_PHASES; phase++) divide(&step->phases[phase], n);
    step->model_flops /= n;
    step->traffic.messages /= n;
    step->traffic.buffer_bytes /= n;
    step->traffic.sent_bytes /= n;
    step->traffic.link_seconds /= n;
    step->traffic.exposed_seconds /= n;
}

/* ---- a GPU on which nothing happens */

struct Rehearsal {
    const struct Config *config;
    int n_gpus;
    struct Backend *be;
    struct Comm *comm;
    struct Learner learner;
    int64_t *samples; /* [capacity], read for KD's noises */
    struct PlanStep sum;
};

int64_t plan_share(const struct Config *config, int n_gpus) {
    return config->train.global_batch - batch_share_start(config, n_gpus, n_gpus - 1); /* rounded up */
}

static void rehearsal_init(struct Rehearsal *r, const struct Config *config,
                           const struct PlanTarget *target) {
    int64_t share = plan_share(config, target->n_gpus), micro = config->train.micro_batch;
    *r = (struct Rehearsal){
        .config = config, .n_gpus = target->n_gpus, .be = backend_plan_create(target->act_dtype)};
    r->comm = comm_plan_create(r->be, target->n_gpus, target->link);
    learner_init(&r->learner, config, r->be, r->comm, target->video, share < micro ? share : micro,
                 NULL, -1);
    r->samples = xcalloc((size_t)r->learner.batch.capacity * sizeof *r->samples);
    backend_plan_set_clock(r->be, plan_clock(target->machine));
    backend_plan_reset(r->be);
}

static void rehearsal_free(struct Rehearsal *r) {
    learner_free(&r->learner);
    r->comm->destroy(r->comm);
    r->be->destroy(r->be);
    free(r->samples);
}

/* Adds what was called since the last booking. */
static void book(struct Rehearsal *r, enum PlanPhase phase) {
    const struct OpTally *ops = backend_plan_tallies(r->be);
    for (int op = 0; op < OP_COUNT; op++) {
        bool backward = phase == PLAN_FORWARD && strstr(op_name((enum Op)op), "_backward");
        plan_tally_add(&r->sum.ops[op], ops[op], 1);
        plan_tally_add(&r->sum.phases[backward ? PLAN_BACKWARD : phase], ops[op], 1);
    }
    r->sum.model_flops += op_tally_total(ops).flops - backend_plan_scores_again(r->be);
    backend_plan_reset(r->be);
}

static void rehearse_passes(struct Rehearsal *r, enum StepKind kind, int64_t iteration, int gpu) {
    struct Learner *l = &r->learner;
    int64_t first = batch_share_start(r->config, r->n_gpus, gpu);
    int64_t end = batch_share_start(r->config, r->n_gpus, gpu + 1), capacity = l->batch.capacity;
    for (int64_t at = first; at < end; at += capacity) {
        struct StepInputs in;
        struct StepResult result;
        struct StepScalar scalars[STEP_MAX_SCALARS];
        struct LearnerPass pass = {.iteration = iteration,
                                   .first = at,
                                   .batch = end - at < capacity ? end - at : capacity,
                                   .last = end - at <= capacity,
                                   .host_samples = r->samples};
        int64_t mark = arena_mark(&l->arena);
        struct StepContext ctx = learner_pass(l, kind, &pass, &in, &result);
        step_scalars(&ctx, &result, scalars);
        arena_release(&l->arena, mark);
    }
}

/* An iteration as the trainer runs it; returns its seconds. */
static double rehearse(struct Rehearsal *r, enum StepKind kind, int64_t iteration, int gpu) {
    struct Learner *l = &r->learner;
    double begin = backend_plan_now(r->be), waited = r->sum.phases[PLAN_EXPOSED].seconds;
    learner_begin(l, kind);
    book(r, PLAN_ZERO);
    rehearse_passes(r, kind, iteration, gpu);
    learner_sum(l, kind);
    book(r, PLAN_FORWARD);
    r->sum.traffic = comm_plan_traffic(r->comm);
    r->sum.phases[PLAN_EXPOSED].seconds = r->sum.traffic.exposed_seconds;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(l, kind, (enum Role)role)) continue;
        double norm = learner_gradient_norm(l, (enum Role)role);
        learner_update(l, (enum Role)role, iteration, iteration + 1, norm);
    }
    book(r, PLAN_UPDATE);
    return backend_plan_now(r->be) - begin + r->sum.phases[PLAN_EXPOSED].seconds - waited;
}

/* ---- iterations that stand for all */

static struct PlanStep rehearse_kind(const struct Config *config, const struct PlanTarget *target,
                                     enum StepKind kind) {
    enum { DRAWS = 8 };
    bool varies = kind == STEP_STAGE1 && config->stage1.method == STAGE1_MEANFLOW;
    int n_iterations = varies ? DRAWS : 1, first_gpu = varies ? 0 : target->n_gpus - 1;
    struct Rehearsal r;
    double seconds = 0.0, busy = 0.0;
    rehearsal_init(&r, config, target);
    for (int k = 0; k < n_iterations; k++) {
        double slowest = 0.0;
        for (int gpu = first_gpu; gpu < target->n_gpus; gpu++) {
            double of_gpu = rehearse(&r, kind, k, gpu);
            slowest = fmax(slowest, of_gpu);
            busy += of_gpu;
        }
        seconds += slowest;
    }
    int n_runs = n_iterations * (target->n_gpus - first_gpu);
    struct PlanStep step = r.sum;
    step.kind = kind;
    divide_step(&step, n_runs);
    step.seconds = seconds / n_iterations;
    step.phases[PLAN_SLOWEST].seconds = step.seconds - busy / n_runs;
    rehearsal_free(&r);
    return step;
}

struct PlanStep plan_step_make(const struct Config *config, const struct PlanTarget *target,
                               enum StepKind kind) {
    struct PlanStep step = rehearse_kind(config, target, kind);
    if (config->train.recompute == RECOMPUTE_NONE) return step;
    struct Config keeping = *config; /* its strings are borrowed */
    keeping.train.recompute = RECOMPUTE_NONE;
    struct PlanStep once = rehearse_kind(&keeping, target, kind);
    step.phases[PLAN_AGAIN] = step.phases[PLAN_FORWARD];
    plan_tally_add(&step.phases[PLAN_AGAIN], once.phases[PLAN_FORWARD], -1);
    step.phases[PLAN_FORWARD] = once.phases[PLAN_FORWARD];
    step.model_flops = once.model_flops;
    return step;
}
