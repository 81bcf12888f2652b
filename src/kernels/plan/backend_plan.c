/* The backend that computes nothing.  It hands out addresses that nobody may read and only counts
 * what an operation would cost, so that the very step code that trains also tells, run over it with
 * a measuring arena, how much memory, arithmetic and time the step takes.  Downloads read as zero.
 */
#include "kernels/plan/backend_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

struct Plan {
    int64_t n_bytes_allocated;
    struct OpTally tallies[OP_COUNT];
    double scores_again; /* flops */
    struct PlanClock clock;
    double now; /* seconds */
};

static void book(const struct Backend *be, enum Op op, struct OpCost cost) {
    struct Plan *plan = be->state;
    const struct PlanClock *clock = &plan->clock;
    double seconds = clock->seconds ? clock->seconds(clock->machine, op, cost) : 0.0;
    op_tally_add(&plan->tallies[op], cost, seconds);
    plan->now += seconds;
}

#define PLAN_COUNT(name, params, names)                                                            \
    static void plan_##name(const struct Backend *be, BACKEND_UNWRAP params) {                     \
        book(be, OP_##name, op_cost_##name(be, BACKEND_UNWRAP names));                             \
    }
MEMORY_OPS(PLAN_COUNT)
COMPUTE_OPS(PLAN_COUNT)

/* Notes the scores besides: one of the two products of forward. */
static void plan_attention_backward_noted(const struct Backend *be, Act *dq, Act *dk, Act *dv,
                                          const Act *grad_o, const Act *o, const float *lse,
                                          const Act *q, const Act *k, const Act *v,
                                          struct AttentionShape shape) {
    struct Plan *plan = be->state;
    plan->scores_again += 0.5 * op_cost_attention_forward(be, NULL, NULL, q, k, v, shape).flops;
    plan_attention_backward(be, dq, dk, dv, grad_o, o, lse, q, k, v, shape);
}

static void plan_download_zeros(const struct Backend *be, void *host, const void *device,
                                int64_t n_bytes) {
    plan_download(be, host, device, n_bytes);
    memset(host, 0, (size_t)n_bytes);
}

static void plan_download_start_zeros(const struct Backend *be, void *host, const void *device,
                                      int64_t n_bytes) {
    plan_download_start(be, host, device, n_bytes);
    memset(host, 0, (size_t)n_bytes);
}

/* Addresses that differ from each other and from those of a measuring arena: code may compare them.
 */
static const uintptr_t fake_memory = (uintptr_t)1 << 62;

static void *plan_memory_alloc(const struct Backend *be, int64_t n_bytes) {
    struct Plan *plan = be->state;
    uintptr_t address = fake_memory + (uintptr_t)((plan->n_bytes_allocated + 63) / 64 * 64);
    plan->n_bytes_allocated += n_bytes;
    return (void *)address;
}

static void plan_memory_free(const struct Backend *be, void *memory) {
    (void)be;
    (void)memory;
}

static int64_t plan_memory_available(const struct Backend *be) {
    (void)be;
    return INT64_MAX;
}

static void plan_describe(const struct Backend *be, char *text, size_t n_bytes) {
    snprintf(text, n_bytes, "%s", be->name);
}

static void plan_finish(const struct Backend *be) {
    (void)be;
}

static void plan_destroy(struct Backend *be) {
    free(be->state);
    free(be);
}

struct Backend *backend_plan_create(enum Dtype act_dtype) {
    struct Backend *be = xcalloc(sizeof *be);
    be->name = "plan";
    be->act_dtype = act_dtype;
    be->state = xcalloc(sizeof(struct Plan));
#define PLAN_ENTRY(op, params, names) be->op = plan_##op;
    MEMORY_OPS(PLAN_ENTRY)
    COMPUTE_OPS(PLAN_ENTRY)
    be->download = plan_download_zeros;
    be->download_start = plan_download_start_zeros;
    be->attention_backward = plan_attention_backward_noted;
    be->memory_alloc = plan_memory_alloc;
    be->memory_free = plan_memory_free;
    be->upload_wait = plan_finish;
    be->download_wait = plan_finish;
    be->pinned_alloc = backend_host_alloc;
    be->pinned_free = backend_host_free;
    be->memory_available = plan_memory_available;
    be->describe = plan_describe;
    be->finish = plan_finish;
    be->run_often = backend_run_once;
    be->learned = backend_learned_none;
    be->destroy = plan_destroy;
    return be;
}

int64_t backend_plan_allocated(const struct Backend *be) {
    return ((const struct Plan *)be->state)->n_bytes_allocated;
}

const struct OpTally *backend_plan_tallies(const struct Backend *be) {
    return ((const struct Plan *)be->state)->tallies;
}

void backend_plan_set_clock(struct Backend *be, struct PlanClock clock) {
    struct Plan *plan = be->state;
    plan->clock = clock;
    plan->now = 0.0;
}

double backend_plan_now(const struct Backend *be) {
    return ((const struct Plan *)be->state)->now;
}

double backend_plan_scores_again(const struct Backend *be) {
    return ((const struct Plan *)be->state)->scores_again;
}

void backend_plan_reset(struct Backend *be) {
    struct Plan *plan = be->state;
    memset(plan->tallies, 0, sizeof plan->tallies);
    plan->scores_again = 0.0;
}
