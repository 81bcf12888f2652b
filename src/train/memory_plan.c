/* The memory of a run, found by running its steps on the backend that computes nothing. */
#include <stdlib.h>

#include "train/comm_plan.h"
#include "train/kd_pairs.h"
#include "train/preview.h"
#include "train/trainer.h"

int64_t memory_plan_total(const struct MemoryPlan *plan) {
    int64_t total = plan->batch + plan->units + plan->step;
    for (int role = 0; role < ROLE_COUNT; role++) total += plan->weights[role];
    return total;
}

/* The step arena's peak over all kinds of steps. */
static int64_t step_peak(struct Learner *l) {
    const struct Config *config = l->config;
    int64_t n_kinds = config->train.stage == STAGE_STAGE2 ? config->stage2.student_every : 1;
    for (int64_t k = 0; k < n_kinds && k < 2; k++) {
        struct StepInputs *in = xcalloc(sizeof *in);
        struct StepResult result;
        struct StepContext ctx = {.nets = &l->nets,
                                  .arena = &l->arena,
                                  .tapes = l->tapes,
                                  .sample_weight = 1.0,
                                  .last = true};
        in->batch = l->batch.capacity;
        for (int64_t b = 0; b < in->batch; b++) in->s[b] = 1.0; /* r < s: the most that a stage does */
        int64_t mark = arena_mark(&l->arena);
        step_run(&ctx, step_kind_at(config, k), in, &result);
        arena_release(&l->arena, mark);
        free(in);
    }
    return l->arena.peak;
}

struct MemoryPlan memory_plan_make(const struct Config *config, struct VideoShape video,
                                   const struct RankGrid *grid, enum Dtype act_dtype) {
    struct MemoryPlan plan = {0};
    struct Backend *be = backend_plan_create(act_dtype);
    struct Comm *world = comm_plan_create(be, grid->n_ranks, (struct PlanLink){0});
    struct Parallel parallel;
    struct Learner learner;
    int64_t n_local = batch_share(config, grid);
    int64_t capacity = n_local < config->train.micro_batch ? n_local : config->train.micro_batch;
    parallel_open(&parallel, grid, world);
    learner_init(&learner, config, be, &parallel, video, capacity, NULL, -1);
    const struct Networks *nets = &learner.nets;
    plan.batch = backend_plan_allocated(be);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.present[role]) continue;
        plan.weights[role] = weights_bytes(&nets->weights[role]);
        plan.batch -= plan.weights[role];
    }
    plan.units = learner_unit_bytes(&learner);
    plan.batch -= plan.units;
    plan.step = step_peak(&learner);
    int64_t preview = preview_arena_bytes(nets), pairs = 0;
    if (config->train.stage == STAGE_KD) pairs = kd_pairs_arena_bytes(nets);
    if (preview > plan.step) plan.step = preview;
    if (pairs > plan.step) plan.step = pairs;
    learner_free(&learner);
    parallel_close(&parallel);
    world->destroy(world);
    be->destroy(be);
    return plan;
}

void memory_plan_print(const struct MemoryPlan *plan, FILE *out) {
    const double mb = 1e-6;
    fprintf(out, "memory per rank:");
    for (int role = 0; role < ROLE_COUNT; role++)
        if (plan->weights[role])
            fprintf(out, " %s %.1f MB,", role_name((enum Role)role), mb * (double)plan->weights[role]);
    if (plan->units) fprintf(out, " whole units %.1f MB,", mb * (double)plan->units);
    fprintf(out, " batch %.1f MB, step %.1f MB, together %.1f MB\n", mb * (double)plan->batch,
            mb * (double)plan->step, mb * (double)memory_plan_total(plan));
}
