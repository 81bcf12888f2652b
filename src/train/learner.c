/* Joins the networks to the ranks' traffic, and forwards each call to the roles that the step
 * trains. */
#include "train/learner.h"

#include <math.h>

#include "train/optimizer.h"
#include "train/phase_timer.h"
#include "train/token_exchange.h"

/* Trained roles are held in shares under every mode of parallel.shard, frozen ones only under
 * `full`. */
struct NetworksPlan learner_networks_plan(const struct Config *config, const struct RankGrid *grid) {
    struct NetworksPlan plan = networks_plan(config);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (config->parallel.shard == SHARD_FULL || plan.trained[role])
            plan.share[role] = (struct Share){grid->share, grid->n_shares};
    return plan;
}

static void join_whole(struct Learner *l) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (l->nets.plan.trained[role])
            unit_traffic_whole(&l->traffic[role], l->parallel, &l->nets.weights[role]);
}

static void join_optimizer(struct Learner *l) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct Weights *w = &l->nets.weights[role];
        if (!l->nets.plan.trained[role]) continue;
        bool borrows = role == ROLE_FAKE && !(w->arrays & WEIGHTS_GRAD);
        unit_traffic_optimizer(&l->traffic[role], l->parallel, &l->passes, w,
                               borrows ? &l->traffic[ROLE_STUDENT] : NULL);
    }
}

static void join_full(struct Learner *l) {
    struct Weights *weights[ROLE_COUNT] = {NULL};
    for (int role = 0; role < ROLE_COUNT; role++)
        if (l->nets.plan.present[role]) weights[role] = &l->nets.weights[role];
    l->ring = unit_ring_create(l->parallel, weights, ROLE_COUNT);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (weights[role])
            unit_traffic_full(&l->traffic[role], l->parallel, l->ring, weights[role]);
}

/* Hooks the roles' units to what ranks send each other.  With one share nothing needs to be
 * gathered. */
static void join_ranks(struct Learner *l, enum ShardMode shard) {
    if (l->parallel->grid.n_shares == 1)
        join_whole(l);
    else if (shard == SHARD_OPTIMIZER)
        join_optimizer(l);
    else
        join_full(l);
    networks_make_frozen_views(&l->nets);
}

void learner_init(struct Learner *l, const struct Config *config, const struct Backend *be,
                  const struct Parallel *parallel, struct VideoShape video, int64_t capacity,
                  const float *host_neg_text, int64_t arena_bytes) {
    struct NetworksPlan plan = learner_networks_plan(config, &parallel->grid);
    *l = (struct Learner){.config = config, .parallel = parallel, .tapes = step_tapes_create()};
    networks_init(&l->nets, config, be, plan, video);
    join_ranks(l, config->parallel.shard);
    if (parallel->grid.n_parts > 1)
        networks_split_tokens(
            &l->nets, token_split_over(parallel->parts, l->nets.whole_geometry.tokens));
    batch_init(&l->batch, &l->nets, capacity, host_neg_text);
    if (arena_bytes < 0)
        arena_init_measuring(&l->arena, be);
    else
        arena_init(&l->arena, be, arena_bytes);
    l->scratch = be->memory_alloc(be, sizeof *l->scratch);
}

void learner_free(struct Learner *l) {
    const struct Backend *be = l->nets.be;
    if (!be) return;
    be->memory_free(be, l->scratch);
    arena_free(&l->arena);
    batch_free(&l->batch);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (l->traffic[role].close) l->traffic[role].close(l->traffic[role].state);
    unit_ring_destroy(l->ring);
    networks_free(&l->nets);
    step_tapes_destroy(l->tapes);
    *l = (struct Learner){0};
}

void learner_weights_loaded(struct Learner *l) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (l->traffic[role].updated) l->traffic[role].updated(l->traffic[role].state);
}

int64_t learner_unit_bytes(const struct Learner *l) {
    int64_t sum = l->ring ? unit_ring_bytes(l->ring) : 0;
    for (int role = 0; role < ROLE_COUNT; role++) sum += l->traffic[role].n_bytes;
    return sum;
}

bool learner_trains(const struct Learner *l, enum StepKind kind, enum Role role) {
    return l->nets.plan.trained[role] && step_trains(kind, role);
}

void learner_begin(struct Learner *l, enum StepKind kind) {
    if (l->ring) unit_ring_begin(l->ring, (int)kind);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (learner_trains(l, kind, (enum Role)role))
            l->traffic[role].begin(l->traffic[role].state);
}

void learner_begin_outside(struct Learner *l) {
    if (l->ring) unit_ring_begin(l->ring, -1);
}

void learner_begin_pairs(struct Learner *l) {
    if (l->ring) unit_ring_begin(l->ring, STEP_KIND_COUNT); /* an order of its own */
}

void learner_swap_average(struct Learner *l) {
    enum Role role = l->nets.plan.main;
    struct Weights *w = &l->nets.weights[role];
    if (w->share.n_shares == 1 || !w->ema) return;
    l->parallel->shares->finish(l->parallel->shares); /* nothing reads the weights any more */
    weights_swap_average(w);
    l->traffic[role].updated(l->traffic[role].state);
}

struct StepContext learner_pass(struct Learner *l, enum StepKind kind, const struct LearnerPass *pass,
                                struct StepInputs *in, struct StepResult *result) {
    struct StepContext ctx = {.nets = &l->nets,
                              .arena = &l->arena,
                              .tapes = l->tapes,
                              .sample_weight = 1.0 / (double)l->config->train.global_batch,
                              .last = pass->last,
                              .lockstep = l->ring != NULL,
                              .all_outputs = pass->all_outputs};
    batch_fill(&l->batch, kind, &pass->samples, in);
    step_run(&ctx, kind, in, result);
    /* after step_run, so that the device computes while the host copies */
    if (pass->next.n) batch_upload_start(&l->batch, &pass->next);
    return ctx;
}

/* Starts the sums of all roles before it waits for any. */
void learner_sum(struct Learner *l, enum StepKind kind) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (learner_trains(l, kind, (enum Role)role))
            l->traffic[role].sum_rest(l->traffic[role].state);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (learner_trains(l, kind, (enum Role)role))
            l->traffic[role].sum_finish(l->traffic[role].state);
}

double learner_gradient_norm(struct Learner *l, enum Role role) {
    struct Comm *shares = l->parallel->shares;
    double squared = gradient_norm_squared(&l->nets.weights[role], l->scratch);
    if (l->parallel->grid.n_shares > 1) shares->sum_f64(shares, &squared, 1);
    return sqrt(squared);
}

/* An update changes masters, moments and average, and nothing else does: a save's copy of them must
 * be complete before. */
static void await_copies(struct Learner *l) {
    double start = wall_seconds();
    l->nets.be->download_wait(l->nets.be);
    l->copy_wait_seconds += wall_seconds() - start;
}

void learner_update(struct Learner *l, enum Role role, int64_t iteration, int64_t step, double norm) {
    await_copies(l);
    optimizer_update(l->config, &l->nets.weights[role], role, iteration, step, norm);
    l->traffic[role].updated(l->traffic[role].state);
}

double learner_take_copy_wait(struct Learner *l) {
    double seconds = l->copy_wait_seconds;
    l->copy_wait_seconds = 0.0;
    return seconds;
}
