/* Allocates the networks on the plan backend and reads their sizes off. */
#include "train/plan_memory.h"

#include "train/run_state.h"

const char *plan_part_name(enum PlanPart part) {
    static const char *const names[PLAN_PARTS] = {"master", "compute", "gradient", "moments",
                                                  "EMA"};
    return names[part];
}

/* Read off the very buffers that a run allocates. */
static void split(const struct Weights *w, int64_t parts[PLAN_PARTS]) {
    int64_t n_bytes = w->n_elems * (int64_t)sizeof(float);
    parts[PLAN_MASTER] = n_bytes;
    parts[PLAN_COMPUTE] = w->n_compute * dtype_bytes(w->be->act_dtype);
    parts[PLAN_GRADIENT] = w->arrays & WEIGHTS_GRAD ? n_bytes : 0;
    parts[PLAN_MOMENTS] = (w->adam_m ? n_bytes : 0) + (w->adam_v ? n_bytes : 0);
    parts[PLAN_EMA] = w->ema ? n_bytes : 0;
}

struct PlanMemory plan_memory_make(const struct Config *config, struct VideoShape video,
                                   const struct RankGrid *grid, enum Dtype act_dtype,
                                   const struct Machine *machine) {
    struct MemoryPlan whole = memory_plan_make(config, video, grid, act_dtype);
    struct PlanMemory memory = {
        .batch = whole.batch, .units = whole.units, .step = whole.step, .reserved = (int64_t)machine->reserved_bytes};
    struct Backend *be = backend_plan_create(act_dtype);
    struct NetworksPlan plan = learner_networks_plan(config, grid);
    struct Networks nets;
    networks_init(&nets, config, be, plan, video);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (nets.plan.present[role]) split(&nets.weights[role], memory.weights[role]);
        int64_t parts = plan_memory_role(&memory, (enum Role)role);
        TMD_CHECK(parts == whole.weights[role], "%s: parts of %lld bytes, together %lld",
                  role_name((enum Role)role), (long long)parts, (long long)whole.weights[role]);
    }
    memory.host = run_state_bytes(&nets);
    networks_free(&nets);
    be->destroy(be);
    return memory;
}

int64_t plan_memory_role(const struct PlanMemory *memory, enum Role role) {
    int64_t sum = 0;
    for (int part = 0; part < PLAN_PARTS; part++) sum += memory->weights[role][part];
    return sum;
}

int64_t plan_memory_total(const struct PlanMemory *memory) {
    int64_t sum = memory->batch + memory->units + memory->step + memory->reserved;
    for (int role = 0; role < ROLE_COUNT; role++) sum += plan_memory_role(memory, (enum Role)role);
    return sum;
}
