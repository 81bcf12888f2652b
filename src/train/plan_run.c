#include "train/plan_run.h"

/* In which KD's teacher makes a GPU's share of the pairs. */
static double pairs_seconds(const struct Config *config, const struct PlanTarget *target) {
    double n_batches =
        (double)config->kd.pairs / target->n_gpus / (double)config->train.micro_batch;
    return n_batches * plan_pairs_make(config, target).seconds;
}

static void plan_steps(struct Plan *plan) {
    const struct Config *config = plan->config;
    int64_t iterations = config->train.iterations, every = config->stage2.student_every;
    bool alternates = config->train.stage == STAGE_STAGE2 && every > 1 && iterations > 1;
    plan->n_kinds = alternates ? 2 : 1;
    plan->n_iterations[0] = alternates ? (iterations + every - 1) / every : iterations;
    plan->n_iterations[1] = iterations - plan->n_iterations[0];
    for (int i = 0; i < plan->n_kinds; i++)
        plan->steps[i] = plan_step_make(config, &plan->target, step_kind_at(config, i));
}

int64_t plan_tokens(const struct Config *config, struct VideoShape video) {
    const int64_t *patch = config->model.patch_size;
    return video.frames / patch[0] * (video.height / patch[1]) * (video.width / patch[2]);
}

bool plan_make(struct Plan *plan, const struct Config *config, const struct PlanTarget *target,
               struct Error *err) {
    struct VideoShape v = target->video;
    if (target->act_dtype != DTYPE_BF16)
        return error_set(err,
                         "device.precision is %s, but the tables of machines tell the speed of "
                         "bf16 only",
                         dtype_name(target->act_dtype));
    struct RankGrid grid;
    if (!rank_grid_init(&grid, config, target->n_gpus, target->n_gpus - 1, err)) return false;
    if (!config_check_video(config, &v, err)) return false;
    *plan = (struct Plan){.config = config, .target = *target};
    plan->tokens = plan_tokens(config, v);
    plan->share = batch_share(config, &grid);
    plan->memory = plan_memory_make(config, v, &grid, target->act_dtype, target->machine);
    plan_steps(plan);
    if (config->train.stage == STAGE_KD) plan->preparation_seconds = pairs_seconds(config, target);
    return true;
}

bool plan_fits(const struct Plan *plan) {
    return (double)plan_memory_total(&plan->memory) <= plan->target.machine->memory_bytes;
}

struct PlanTotals plan_totals(const struct Plan *plan) {
    struct PlanTotals totals = {0};
    for (int i = 0; i < plan->n_kinds; i++) {
        const struct PlanStep *step = &plan->steps[i];
        int64_t n = plan->n_iterations[i];
        struct OpTally whole = op_tally_total(step->ops);
        whole.seconds = step->seconds;
        plan_tally_add(&totals.whole, whole, n);
        for (int op = 0; op < OP_COUNT; op++) plan_tally_add(&totals.ops[op], step->ops[op], n);
        for (int phase = 0; phase < PLAN_PHASES; phase++)
            plan_tally_add(&totals.phases[phase], step->phases[phase], n);
        totals.model_flops += (double)n * step->model_flops;
        totals.link_seconds += (double)n * step->traffic.link_seconds;
    }
    for (int op = 0; op < OP_COUNT; op++)
        if (totals.ops[op].seconds > totals.ops[totals.slowest].seconds)
            totals.slowest = (enum Op)op;
    return totals;
}

double plan_mfu(const struct Plan *plan) {
    struct PlanTotals totals = plan_totals(plan);
    return totals.model_flops / (totals.whole.seconds * plan->target.machine->flops);
}

double plan_run_seconds(const struct Plan *plan) {
    return plan->preparation_seconds + plan_totals(plan).whole.seconds;
}
