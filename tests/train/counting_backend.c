/* A copy of another backend's table with one function replaced. */
#include "counting_backend.h"

static void *counting_alloc(const struct Backend *be, int64_t n_bytes) {
    struct CountingBackend *counting = (struct CountingBackend *)(uintptr_t)be;
    counting->n_bytes += n_bytes;
    return counting->inner->memory_alloc(counting->inner, n_bytes);
}

struct CountingBackend counting_backend(struct Backend *inner) {
    struct CountingBackend counting = {.table = *inner, .inner = inner};
    counting.table.memory_alloc = counting_alloc;
    return counting;
}
