#include "train/learner.h"

#include "train/optimizer.h"

void learner_init(struct Learner *l, const struct Config *config, const struct Backend *be,
                  struct Comm *comm, struct VideoShape video, int64_t capacity,
                  const float *host_neg_text, int64_t arena_bytes) {
    *l = (struct Learner){.config = config, .comm = comm, .tapes = step_tapes_create()};
    networks_init(&l->nets, config, be, networks_plan(config), video);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (l->nets.plan.trained[role])
            grad_sync_attach(&l->syncs[role], comm, &l->nets.weights[role]);
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
    networks_free(&l->nets);
    step_tapes_destroy(l->tapes);
    *l = (struct Learner){0};
}

bool learner_trains(const struct Learner *l, enum StepKind kind, enum Role role) {
    return l->nets.plan.trained[role] && step_trains(kind, role);
}

void learner_begin(struct Learner *l, enum StepKind kind) {
    const struct Backend *be = l->nets.be;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(l, kind, (enum Role)role)) continue;
        struct Weights *w = &l->nets.weights[role];
        be->zero(be, w->grad, w->table->n_elems * (int64_t)sizeof(float));
        grad_sync_begin(&l->syncs[role]);
    }
}

struct StepContext learner_pass(struct Learner *l, enum StepKind kind, const struct LearnerPass *pass,
                                struct StepInputs *in, struct StepResult *result) {
    struct StepContext ctx = {.nets = &l->nets,
                              .arena = &l->arena,
                              .tapes = l->tapes,
                              .sample_weight = 1.0 / (double)l->config->train.global_batch,
                              .last = pass->last,
                              .all_outputs = pass->all_outputs};
    *in = (struct StepInputs){.batch = pass->batch};
    batch_fill(&l->batch, kind, pass->iteration, pass->first, pass->host_video, pass->host_text,
               pass->host_samples, in);
    step_run(&ctx, kind, in, result);
    return ctx;
}

void learner_sum(struct Learner *l, enum StepKind kind) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (learner_trains(l, kind, (enum Role)role)) grad_sync_rest(&l->syncs[role]);
    l->comm->sums_finish(l->comm);
}

double learner_gradient_norm(struct Learner *l, enum Role role) {
    return gradient_norm(&l->nets.weights[role], l->scratch);
}

void learner_update(struct Learner *l, enum Role role, int64_t iteration, int64_t step, double norm) {
    optimizer_update(l->config, &l->nets.weights[role], role, iteration, step, norm);
}
