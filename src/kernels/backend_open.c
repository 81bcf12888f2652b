#include "kernels/backend_open.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/backend_cuda.h"

bool backend_open(struct BackendChoice choice, int local_rank, struct Backend **be,
                  struct Error *err) {
    if (choice.kind == BACKEND_CUDA)
        return backend_cuda_create((struct BackendCuda){.act_dtype = choice.precision,
                                                        .device = local_rank,
                                                        .deterministic = choice.deterministic,
                                                        .tune_gemm = choice.tune_gemm,
                                                        .graphs = choice.graphs},
                                   be, err);
    *be = backend_cpu_create();
    return true;
}

static bool is_cuda(const struct Backend *be) {
    return strcmp(be->name, "cuda") == 0;
}

int64_t backend_free_bytes(const struct Backend *be) {
    if (is_cuda(be)) return backend_cuda_free_bytes(be);
    return (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
}

void backend_describe(const struct Backend *be, char *text, size_t n_bytes) {
    if (is_cuda(be))
        backend_cuda_describe(be, text, n_bytes);
    else
        snprintf(text, n_bytes, "%s", be->name);
}
