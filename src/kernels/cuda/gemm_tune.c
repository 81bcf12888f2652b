/* The fastest way to a product, measured on its own operands.
 *
 * A trial runs on the very buffers of the call, so that nothing is allocated on the device and
 * alignment and placement are those of the real work.  What a trial would spoil - C that is
 * accumulated into, sums - waits meanwhile on the host; everything else that it writes, the call
 * itself overwrites. */
#include <math.h>
#include <stdlib.h>

#include "kernels/cuda/gemm_plan.h"

enum { TRIAL_RUNS = 5 };

/* algo NULL: the separate way.  False: the library would not. */
static bool run_once(const struct Backend *be, const struct GemmPlan *plan,
                     const struct GemmProduct *p, const cublasLtMatmulAlgo_t *algo) {
    if (algo) return gemm_run_fused(be, plan, p, algo) == CUBLAS_STATUS_SUCCESS;
    gemm_run_separate(be, p);
    return true;
}

struct Stopwatch {
    cudaEvent_t start, stop;
};

/* The mean of some runs after one that warms up; infinite when the library refuses. */
static float microseconds_of(const struct Backend *be, const struct Stopwatch *watch,
                             const struct GemmPlan *plan, const struct GemmProduct *p,
                             const cublasLtMatmulAlgo_t *algo) {
    cudaStream_t stream = cuda_state(be)->stream;
    if (!run_once(be, plan, p, algo)) return INFINITY;
    CUDA_CHECK(cudaEventRecord(watch->start, stream));
    for (int i = 0; i < TRIAL_RUNS; i++)
        if (!run_once(be, plan, p, algo)) return INFINITY;
    CUDA_CHECK(cudaEventRecord(watch->stop, stream));
    CUDA_CHECK(cudaEventSynchronize(watch->stop));
    float milliseconds;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, watch->start, watch->stop));
    return 1000.0f * milliseconds / TRIAL_RUNS;
}

static struct GemmChoice fastest(const struct Backend *be, const struct GemmPlan *plan,
                                 const struct GemmProduct *p,
                                 const cublasLtMatmulHeuristicResult_t *candidates,
                                 int n_candidates) {
    struct Stopwatch watch;
    CUDA_CHECK(cudaEventCreate(&watch.start));
    CUDA_CHECK(cudaEventCreate(&watch.stop));
    struct GemmChoice best = {.fused = true, .algo = candidates[0].algo, .microseconds = INFINITY};
    for (int i = 0; i < n_candidates; i++) {
        float time = microseconds_of(be, &watch, plan, p, &candidates[i].algo);
        if (time < best.microseconds) best = (struct GemmChoice){true, candidates[i].algo, time};
    }
    if (p->epilogue != GEMM_PLAIN) {
        float time = microseconds_of(be, &watch, plan, p, NULL);
        if (time < best.microseconds)
            best = (struct GemmChoice){.fused = false, .microseconds = time};
    }
    CUDA_CHECK(cudaEventDestroy(watch.start));
    CUDA_CHECK(cudaEventDestroy(watch.stop));
    TMD_CHECK(isfinite(best.microseconds), "cuBLASLt runs none of its %d algorithms for %s",
              n_candidates, plan->key);
    return best;
}

/* Device memory that is kept on the host for a while. */
struct Kept {
    void *device, *host;
    int64_t n_bytes;
};

static struct Kept keep(const struct Backend *be, void *device, int64_t n_bytes) {
    struct Kept kept = {device, xmalloc((unsigned long)n_bytes), n_bytes};
    cuda_download(be, kept.host, device, n_bytes);
    return kept;
}

static void put_back(const struct Backend *be, struct Kept *kept) {
    if (!kept->host) return;
    cuda_upload(be, kept->device, kept->host, kept->n_bytes);
    free(kept->host);
}

static struct GemmChoice measure(const struct Backend *be, const struct GemmPlan *plan,
                                 const struct GemmProduct *p,
                                 const cublasLtMatmulHeuristicResult_t *candidates,
                                 int n_candidates) {
    struct Kept c = {0}, sums = {0};
    if (p->accumulate) c = keep(be, p->c, p->m * p->n * dtype_bytes(p->out));
    if (p->epilogue == GEMM_ROW_SUMS) sums = keep(be, p->sums, p->m * (int64_t)sizeof(float));
    struct GemmChoice choice = fastest(be, plan, p, candidates, n_candidates);
    put_back(be, &c);
    put_back(be, &sums);
    return choice;
}

static bool cached(const struct Backend *be, const struct GemmPlan *plan,
                   const struct GemmProduct *p, struct GemmChoice *out) {
    return gemm_cache_find(cuda_state(be)->gemm->cache, plan->key, out) &&
           (out->fused ? gemm_algo_fits(be, plan, p, &out->algo) : p->epilogue != GEMM_PLAIN);
}

struct GemmChoice gemm_tune(const struct Backend *be, const struct GemmPlan *plan,
                            const struct GemmProduct *p,
                            const cublasLtMatmulHeuristicResult_t *candidates, int n_candidates) {
    struct GemmCache *cache = cuda_state(be)->gemm->cache;
    struct GemmChoice choice;
    if (cached(be, plan, p, &choice)) return choice;
    /* of several ranks at the same new product one measures, and the others take what it found */
    gemm_cache_lock(cache);
    if (!cached(be, plan, p, &choice)) {
        choice = measure(be, plan, p, candidates, n_candidates);
        gemm_cache_store(cache, plan->key, &choice);
    }
    gemm_cache_unlock(cache);
    return choice;
}
