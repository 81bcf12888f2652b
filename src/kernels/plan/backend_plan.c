/* The backend that computes nothing.  It hands out addresses that nobody may read and does no
 * operation, so that the very step code that trains also tells, run over it with a measuring arena,
 * how much memory the step takes.  Downloads read as zero. */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "kernels/backend.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define PLAN_DO_NOTHING(name, params, names)                                                       \
    static void plan_##name(const struct Backend *be, BACKEND_UNWRAP params) {                     \
    }
COMPUTE_OPS(PLAN_DO_NOTHING)

static void plan_upload(const struct Backend *be, void *device, const void *host, int64_t n_bytes) {
}
static void plan_copy(const struct Backend *be, void *to, const void *from, int64_t n_bytes) {
}
static void plan_zero(const struct Backend *be, void *device, int64_t n_bytes) {
}
static void plan_memory_free(const struct Backend *be, void *memory) {
}
static void plan_download(const struct Backend *be, void *host, const void *device,
                          int64_t n_bytes) {
    memset(host, 0, (size_t)n_bytes);
}
#pragma GCC diagnostic pop

enum { FAKE_ADDRESS = 64 };

static void *plan_memory_alloc(const struct Backend *be, int64_t n_bytes) {
    *(int64_t *)be->state += n_bytes;
    return (void *)(uintptr_t)FAKE_ADDRESS;
}

static void plan_destroy(struct Backend *be) {
    free(be->state);
    free(be);
}

struct Backend *backend_plan_create(enum Dtype act_dtype) {
    struct Backend *be = xcalloc(sizeof *be);
    be->name = "plan";
    be->act_dtype = act_dtype;
    be->state = xcalloc(sizeof(int64_t));
#define PLAN_ENTRY(op, params, names) be->op = plan_##op;
    MEMORY_OPS(PLAN_ENTRY)
    COMPUTE_OPS(PLAN_ENTRY)
    be->memory_alloc = plan_memory_alloc;
    be->memory_free = plan_memory_free;
    be->destroy = plan_destroy;
    return be;
}

int64_t backend_plan_allocated(const struct Backend *be) {
    return *(const int64_t *)be->state;
}
