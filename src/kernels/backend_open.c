/* Chooses by kind.  In a build without CUDA, cuda/absent.c stands in for the CUDA backend and
 * refuses. */
#include "kernels/backend_open.h"

#include "kernels/cuda/backend_cuda.h"

bool backend_open(struct BackendChoice choice, int local_rank, struct Backend **be,
                  struct Error *err) {
    if (choice.kind == BACKEND_CUDA)
        return backend_cuda_create((struct BackendCuda){.act_dtype = choice.precision,
                                                        .device = local_rank,
                                                        .deterministic = choice.deterministic,
                                                        .tune_gemm = choice.tune_gemm,
                                                        .every_plan = choice.every_plan,
                                                        .graphs = choice.graphs},
                                   be, err);
    *be = backend_cpu_create();
    return true;
}
