/* The backend that computes nothing.  It hands out addresses that nobody may read and only counts
 * what an operation would cost, so that the very step code that trains also tells, run over it with
 * a measuring arena, how much memory and arithmetic the step takes.  Downloads read as zero. */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "kernels/op_cost.h"

struct Plan {
    int64_t n_bytes_allocated;
    struct OpTally tallies[OP_COUNT];
};

#define PLAN_COUNT(name, params, names)                                                            \
    static void plan_##name(const struct Backend *be, BACKEND_UNWRAP params) {                     \
        struct Plan *plan = be->state;                                                             \
        op_tally_add(&plan->tallies[OP_##name], op_cost_##name(be, BACKEND_UNWRAP names), 0.0);    \
    }
MEMORY_OPS(PLAN_COUNT)
COMPUTE_OPS(PLAN_COUNT)

static void plan_download_zeros(const struct Backend *be, void *host, const void *device,
                                int64_t n_bytes) {
    plan_download(be, host, device, n_bytes);
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
    be->memory_alloc = plan_memory_alloc;
    be->memory_free = plan_memory_free;
    be->finish = plan_finish;
    be->destroy = plan_destroy;
    return be;
}

int64_t backend_plan_allocated(const struct Backend *be) {
    return ((const struct Plan *)be->state)->n_bytes_allocated;
}

const struct OpTally *backend_plan_tallies(const struct Backend *be) {
    return ((const struct Plan *)be->state)->tallies;
}
