/* The memory of a run, found by running its steps on the backend that computes nothing. */
#include <stdlib.h>

#include "train/preview.h"
#include "train/trainer.h"

int64_t memory_plan_total(const struct MemoryPlan *plan) {
    int64_t total = plan->batch + plan->step;
    for (int role = 0; role < ROLE_COUNT; role++) total += plan->weights[role];
    return total;
}

/* The step arena's peak over all kinds of steps, and over the passes of a batch that does not divide. */
static int64_t step_peak(const struct Config *config, struct Networks *nets, int64_t passes_of,
                         struct StepTapes *tapes) {
    struct Arena arena;
    int64_t peak = 0;
    int64_t n_kinds = config->train.stage == STAGE_STAGE2 ? config->stage2.student_every : 1;
    for (int64_t k = 0; k < n_kinds && k < 2; k++) {
        struct StepInputs *in = xcalloc(sizeof *in);
        struct StepResult result;
        arena_init_measuring(&arena, nets->be);
        struct StepContext ctx = {
            .nets = nets, .arena = &arena, .tapes = tapes, .sample_weight = 1.0, .last = true};
        in->batch = passes_of;
        step_run(&ctx, step_kind_at(config, k), in, &result);
        if (arena.peak > peak) peak = arena.peak;
        free(in);
    }
    return peak;
}

struct MemoryPlan memory_plan_make(const struct Config *config, struct VideoShape video,
                                   int64_t n_local, enum Dtype act_dtype) {
    struct MemoryPlan plan = {0};
    struct Backend *be = backend_plan_create(act_dtype);
    struct Networks nets;
    struct BatchBuffers batch;
    int64_t capacity = n_local < config->train.micro_batch ? n_local : config->train.micro_batch;
    networks_init(&nets, config, be, networks_plan(config), video);
    int64_t before = backend_plan_allocated(be);
    batch_init(&batch, &nets, capacity, NULL);
    plan.batch = backend_plan_allocated(be) - before;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets.plan.present[role]) continue;
        int parts = nets.plan.trained[role] ? WEIGHTS_TRAINED : 0;
        if (role == (int)nets.plan.main && nets.plan.ema) parts |= WEIGHTS_EMA;
        plan.weights[role] = weights_bytes(be, networks_table(&nets, (enum Role)role), parts);
    }
    struct StepTapes *tapes = step_tapes_create();
    plan.step = step_peak(config, &nets, capacity, tapes);
    step_tapes_destroy(tapes);
    int64_t preview = preview_arena_bytes(&nets);
    if (preview > plan.step) plan.step = preview;
    batch_free(&batch);
    networks_free(&nets);
    be->destroy(be);
    return plan;
}

void memory_plan_print(const struct MemoryPlan *plan, FILE *out) {
    const double mb = 1e-6;
    fprintf(out, "memory per rank:");
    for (int role = 0; role < ROLE_COUNT; role++)
        if (plan->weights[role])
            fprintf(out, " %s %.1f MB,", role_name((enum Role)role), mb * (double)plan->weights[role]);
    fprintf(out, " batch %.1f MB, step %.1f MB, together %.1f MB\n", mb * (double)plan->batch,
            mb * (double)plan->step, mb * (double)memory_plan_total(plan));
}
