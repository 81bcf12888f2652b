/* Sets up a learner on the plan backend as one GPU would have it, runs an iteration, and books what
 * was called, phase by phase. */
#include "train/plan_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/kd_pairs.h"

const char *plan_phase_name(enum PlanPhase phase) {
    static const char *const names[PLAN_PHASES] = {
        "zero gradients", "forward", "forward again, for backward", "backward",
        "wait for messages", "update",  "wait for the slowest GPU"};
    return names[phase];
}

/* ---- sums of costs */

void plan_tally_add(struct OpTally *sum, struct OpTally more, int64_t n) {
    sum->calls += n * more.calls;
    sum->seconds += (double)n * more.seconds;
    sum->flops += (double)n * more.flops;
    sum->bytes += (double)n * more.bytes;
}

static void add_step(struct PlanStep *sum, const struct PlanStep *more, int64_t n) {
    const struct PlanTraffic *traffic = &more->traffic;
    for (int op = 0; op < OP_COUNT; op++) plan_tally_add(&sum->ops[op], more->ops[op], n);
    for (int phase = 0; phase < PLAN_PHASES; phase++)
        plan_tally_add(&sum->phases[phase], more->phases[phase], n);
    sum->seconds += (double)n * more->seconds;
    sum->model_flops += (double)n * more->model_flops;
    sum->traffic.messages += n * traffic->messages;
    sum->traffic.buffer_bytes += (double)n * traffic->buffer_bytes;
    sum->traffic.sent_bytes += (double)n * traffic->sent_bytes;
    sum->traffic.link_seconds += (double)n * traffic->link_seconds;
    sum->traffic.exposed_seconds += (double)n * traffic->exposed_seconds;
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
    step->seconds /= n;
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
    struct RankGrid grid; /* of the last GPU, which has the most samples */
    struct Backend *be;
    struct Comm *comm;
    struct Parallel parallel;
    struct Learner learner;
    int64_t *samples;     /* [capacity], read for KD's noises */
    struct PlanStep step; /* what is rehearsed at present */
};

static void rehearsal_init(struct Rehearsal *r, const struct Config *config,
                           const struct PlanTarget *target) {
    struct Error err;
    *r = (struct Rehearsal){.config = config, .be = backend_plan_create(target->act_dtype)};
    TMD_CHECK(rank_grid_init(&r->grid, config, target->n_gpus, target->n_gpus - 1, &err), "%s",
              err.text);
    int64_t micro = config->train.micro_batch, share = batch_share(config, &r->grid);
    r->comm = comm_plan_create(r->be, target->n_gpus, target->link);
    parallel_open(&r->parallel, &r->grid, r->comm);
    learner_init(&r->learner, config, r->be, &r->parallel, target->video,
                 share < micro ? share : micro, NULL, -1);
    r->samples = xcalloc((size_t)r->learner.batch.capacity * sizeof *r->samples);
    backend_plan_set_clock(r->be, plan_clock(target->machine));
    backend_plan_reset(r->be);
}

static void rehearsal_free(struct Rehearsal *r) {
    learner_free(&r->learner);
    parallel_close(&r->parallel);
    r->comm->destroy(r->comm);
    r->be->destroy(r->be);
    free(r->samples);
}

/* Adds what was called since the last booking. */
static void book(struct Rehearsal *r, enum PlanPhase phase) {
    const struct OpTally *ops = backend_plan_tallies(r->be);
    for (int op = 0; op < OP_COUNT; op++) {
        bool backward = phase == PLAN_FORWARD && strstr(op_name((enum Op)op), "_backward");
        plan_tally_add(&r->step.ops[op], ops[op], 1);
        plan_tally_add(&r->step.phases[backward ? PLAN_BACKWARD : phase], ops[op], 1);
    }
    r->step.model_flops += op_tally_total(ops).flops - backend_plan_scores_again(r->be);
    backend_plan_reset(r->be);
}

static void rehearse_passes(struct Rehearsal *r, enum StepKind kind, int64_t iteration,
                            int data_rank) {
    struct Learner *l = &r->learner;
    int64_t first = batch_share_start(r->config, &r->grid, data_rank);
    int64_t end = batch_share_start(r->config, &r->grid, data_rank + 1);
    int64_t capacity = l->batch.capacity;
    for (int64_t at = first; at < end; at += capacity) {
        struct StepInputs in;
        struct StepResult result;
        struct StepScalar scalars[STEP_MAX_SCALARS];
        struct LearnerPass pass = {.samples = {.iteration = iteration,
                                               .first = at,
                                               .n = end - at < capacity ? end - at : capacity,
                                               .indices = r->samples},
                                   .last = end - at <= capacity};
        int64_t mark = arena_mark(&l->arena);
        struct StepContext ctx = learner_pass(l, kind, &pass, &in, &result);
        step_scalars(&ctx, &result, scalars);
        arena_release(&l->arena, mark);
    }
}

/* An iteration of a GPU as the trainer runs it. */
static struct PlanStep rehearse(struct Rehearsal *r, enum StepKind kind, int64_t iteration,
                                int data_rank) {
    struct Learner *l = &r->learner;
    double begin = backend_plan_now(r->be);
    r->step = (struct PlanStep){.kind = kind};
    comm_plan_reset(r->comm);
    learner_begin(l, kind);
    book(r, PLAN_ZERO);
    rehearse_passes(r, kind, iteration, data_rank);
    learner_sum(l, kind);
    book(r, PLAN_FORWARD);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(l, kind, (enum Role)role)) continue;
        double norm = learner_gradient_norm(l, (enum Role)role);
        learner_update(l, (enum Role)role, iteration, iteration + 1, norm);
    }
    book(r, PLAN_UPDATE);
    r->step.traffic = comm_plan_traffic(r->comm);
    double exposed = r->step.traffic.exposed_seconds;
    r->step.phases[PLAN_EXPOSED].seconds = exposed;
    r->step.seconds = backend_plan_now(r->be) - begin + exposed;
    return r->step;
}

/* An iteration before those that count.  Units are gathered ahead only once their order is known,
 * and what an update starts is waited for in the next iteration. */
static void warm_up(struct Rehearsal *r, enum StepKind kind) {
    if (r->grid.n_shares == 1) return;
    rehearse(r, kind, 0, r->grid.data_rank);
    backend_plan_reset(r->be);
}

/* ---- iterations that stand for all */

/* What the draws decide about the cost of a GPU's iteration: how many passes have how many samples
 * with r < s.  The last pass is kept apart, because gradients are summed during it; the order of
 * the others does not matter. */
struct DrawnShare {
    int64_t n_passes[STUDENT_MAX_BATCH + 1]; /* [samples with r < s], of all passes but the last */
    int64_t last_batch, last_derived;        /* of the last: its samples, those with r < s */
};

static struct DrawnShare drawn_share(const struct Rehearsal *r, int64_t iteration, int data_rank) {
    struct DrawnShare share = {.last_batch = 0};
    int64_t first = batch_share_start(r->config, &r->grid, data_rank);
    int64_t end = batch_share_start(r->config, &r->grid, data_rank + 1);
    int64_t capacity = r->learner.batch.capacity;
    for (int64_t at = first; at < end; at += capacity) {
        struct StepInputs in = {.batch = end - at < capacity ? end - at : capacity};
        int64_t n_derived = 0;
        draw_times(r->config, STEP_STAGE1, iteration, at, &in);
        for (int64_t b = 0; b < in.batch; b++) n_derived += in.r[b] < in.s[b];
        if (end - at > capacity) {
            share.n_passes[n_derived]++;
        } else {
            share.last_batch = in.batch;
            share.last_derived = n_derived;
        }
    }
    return share;
}

/* Iterations of GPUs whose draws cost the same: one was rehearsed. */
struct Alike {
    struct DrawnShare share;
    struct PlanStep step;
    int n;
};

struct AlikeList {
    struct Alike *items;
    int n, capacity;
};

static struct Alike *find_alike(struct AlikeList *list, struct Rehearsal *r, int64_t iteration,
                                int data_rank) {
    struct DrawnShare share = drawn_share(r, iteration, data_rank);
    for (int i = 0; i < list->n; i++)
        if (!memcmp(&list->items[i].share, &share, sizeof share)) return &list->items[i];
    if (list->n == list->capacity) {
        list->capacity = 2 * list->capacity + 16;
        list->items = xrealloc(list->items, (size_t)list->capacity * sizeof *list->items);
    }
    struct Alike *alike = &list->items[list->n++];
    *alike = (struct Alike){.share = share, .step = rehearse(r, STEP_STAGE1, iteration, data_rank)};
    return alike;
}

/* The mean over iterations of all GPUs, each as long as its slowest. */
static struct PlanStep rehearse_draws(struct Rehearsal *r) {
    enum { DRAWS = 8 };
    struct AlikeList list = {0};
    struct PlanStep step = {.kind = STEP_STAGE1};
    double seconds = 0.0;
    for (int k = 0; k < DRAWS; k++) {
        double slowest = 0.0;
        for (int data_rank = 0; data_rank < r->grid.n_data; data_rank++) {
            struct Alike *alike = find_alike(&list, r, k, data_rank);
            alike->n++;
            slowest = fmax(slowest, alike->step.seconds);
        }
        seconds += slowest / DRAWS;
    }
    for (int i = 0; i < list.n; i++) add_step(&step, &list.items[i].step, list.items[i].n);
    free(list.items);
    divide_step(&step, DRAWS * r->grid.n_data);
    step.phases[PLAN_SLOWEST].seconds = seconds - step.seconds;
    step.seconds = seconds;
    return step;
}

static struct PlanStep rehearse_kind(const struct Config *config, const struct PlanTarget *target,
                                     enum StepKind kind) {
    bool varies = kind == STEP_STAGE1 && config->stage1.method == STAGE1_MEANFLOW;
    struct Rehearsal r;
    rehearsal_init(&r, config, target);
    warm_up(&r, kind);
    struct PlanStep step = varies ? rehearse_draws(&r) : rehearse(&r, kind, 0, r.grid.n_data - 1);
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

static struct PlanPairs rehearse_pairs(struct Rehearsal *r) {
    double begin = backend_plan_now(r->be);
    comm_plan_reset(r->comm);
    learner_begin_pairs(&r->learner);
    kd_pairs_arena_bytes(&r->learner.nets); /* runs a batch */
    struct PlanTraffic traffic = comm_plan_traffic(r->comm);
    return (struct PlanPairs){backend_plan_now(r->be) - begin + traffic.exposed_seconds, traffic};
}

struct PlanPairs plan_pairs_make(const struct Config *config, const struct PlanTarget *target) {
    struct Rehearsal r;
    rehearsal_init(&r, config, target);
    rehearse_pairs(&r); /* learns the order of units */
    struct PlanPairs pairs = rehearse_pairs(&r);
    rehearsal_free(&r);
    return pairs;
}
