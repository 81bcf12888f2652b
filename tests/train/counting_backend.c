#include "counting_backend.h"

static void *counting_alloc(const struct Backend *be, int64_t n_bytes) {
    struct CountingBackend *counting = (struct CountingBackend *)(uintptr_t)be;
    counting->n_bytes += n_bytes;
    return counting->cpu->memory_alloc(counting->cpu, n_bytes);
}

struct CountingBackend counting_backend(void) {
    struct Backend *cpu = backend_cpu_create();
    struct CountingBackend counting = {.table = *cpu, .cpu = cpu};
    counting.table.memory_alloc = counting_alloc;
    return counting;
}
