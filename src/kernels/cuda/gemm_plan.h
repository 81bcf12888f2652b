/* How one kind of product is computed; shared by gemm.c, which runs plans, and gemm_tune.c, which
 * finds the fastest. */
#ifndef TMD_CUDA_GEMM_PLAN_H
#define TMD_CUDA_GEMM_PLAN_H

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_cache.h"

enum { GEMM_KEY_CHARS = 128, GEMM_MAX_CANDIDATES = 16 };

struct GemmPlan {
    char key[GEMM_KEY_CHARS]; /* what distinguishes this product from others, as the cache has it */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* of our A, B and C */
    struct GemmChoice choice;
    struct GemmPlan *next;
};

struct CudaGemm {
    cublasLtHandle_t handle;
    struct GemmPlan *plans;
    struct GemmCache *cache; /* NULL unless products are tuned */
};

/* Enqueues the product with its epilogue in the library.  Statuses other than success come before
 * anything was enqueued. */
cublasStatus_t gemm_run_fused(const struct Backend *be, const struct GemmPlan *plan,
                              const struct GemmProduct *p, const cublasLtMatmulAlgo_t *algo);
/* Enqueues it as a product with a simpler epilogue or none, and kernels of ours. */
void gemm_run_separate(const struct Backend *be, const struct GemmProduct *p);

/* Whether the library can run `algo` for the plan in the workspace that there is. */
bool gemm_algo_fits(const struct Backend *be, const struct GemmPlan *plan,
                    const struct GemmProduct *p, const cublasLtMatmulAlgo_t *algo);

/* The fastest way, from the cache or by measuring the n candidates (at least one) and, where the
 * product has an epilogue, the separate way.  Leaves C and sums as they were. */
struct GemmChoice gemm_tune(const struct Backend *be, const struct GemmPlan *plan,
                            const struct GemmProduct *p,
                            const cublasLtMatmulHeuristicResult_t *candidates, int n_candidates);

#endif
