/* One function for each object of the format. */
#include "train/plan_json.h"

static json_t *memory_json(const struct Plan *plan) {
    const struct PlanMemory *memory = &plan->memory;
    json_t *roles = json_object();
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!plan_memory_role(memory, (enum Role)role)) continue;
        json_t *parts = json_object();
        for (int part = 0; part < PLAN_PARTS; part++)
            json_object_set_new(parts, plan_part_name((enum PlanPart)part),
                                json_integer(memory->weights[role][part]));
        json_object_set_new(roles, role_name((enum Role)role), parts);
    }
    return json_pack(
        "{s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "capacity", plan->target.machine->memory_bytes, "total",
        (json_int_t)plan_memory_total(memory), "reserved", (json_int_t)memory->reserved, "batch",
        (json_int_t)memory->batch, "units", (json_int_t)memory->units, "step", (json_int_t)memory->step,
        "host", (json_int_t)memory->host, "weights", roles);
}

static json_t *tally_json(struct OpTally t) {
    return json_pack("{s:I, s:f, s:f, s:f}", "calls", (json_int_t)t.calls, "seconds", t.seconds,
                     "flops", t.flops, "bytes", t.bytes);
}

static json_t *step_json(const struct PlanStep *step, int64_t n_iterations) {
    const struct PlanTraffic *traffic = &step->traffic;
    json_t *phases = json_object(), *operations = json_object();
    for (int phase = 0; phase < PLAN_PHASES; phase++)
        json_object_set_new(phases, plan_phase_name((enum PlanPhase)phase),
                            tally_json(step->phases[phase]));
    for (int op = 0; op < OP_COUNT; op++)
        if (step->ops[op].calls)
            json_object_set_new(operations, op_name((enum Op)op), tally_json(step->ops[op]));
    json_t *sums = json_pack("{s:I, s:f, s:f, s:f, s:f}", "messages", (json_int_t)traffic->messages,
                             "buffer_bytes", traffic->buffer_bytes, "sent_bytes",
                             traffic->sent_bytes, "link_seconds", traffic->link_seconds,
                             "exposed_seconds", traffic->exposed_seconds);
    return json_pack("{s:s, s:I, s:f, s:f, s:o, s:o, s:o}", "kind", step_kind_name(step->kind),
                     "iterations", (json_int_t)n_iterations, "seconds", step->seconds,
                     "model_flops", step->model_flops, "phases", phases, "operations", operations,
                     "sums", sums);
}

json_t *plan_json(const struct Plan *plan, const char *config) {
    const struct Machine *machine = plan->target.machine;
    double seconds = plan_run_seconds(plan);
    json_t *steps = json_array();
    for (int i = 0; i < plan->n_kinds; i++)
        json_array_append_new(steps, step_json(&plan->steps[i], plan->n_iterations[i]));
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:I, s:b, s:o, s:o, s:f, s:f, s:f, s:f}", "config", config,
        "stage", config_enum_name("train.stage", (int)plan->config->train.stage), "gpu",
        machine->name, "network", plan->target.network->name, "gpus", plan->target.n_gpus, "tokens",
        (json_int_t)plan->tokens, "fits", plan_fits(plan), "memory", memory_json(plan), "steps",
        steps, "preparation_seconds", plan->preparation_seconds, "run_seconds", seconds, "mfu",
        plan_mfu(plan), "gpu_hours", seconds * plan->target.n_gpus / 3600.0);
    TMD_CHECK(root, "out of memory, or a path that is no UTF-8: %s", config);
    return root;
}
