/* Products as cuBLASLt sees them: descriptors, the plan of each key, and the two ways of running
 * it. */
#include "kernels/cuda/gemm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/gemm_epilogue.h"
#include "kernels/cuda/gemm_plan.h"

enum {
    WIDEST_ACCESS = 16,        /* bytes: no kernel asks for a better alignment of its operands */
    WORKSPACE_ALIGNMENT = 256, /* bytes: as the library wants it */
    AUX_LD_MULTIPLE = 8        /* elements: as the library wants it */
};

static const struct {
    const char *name;
    cublasLtEpilogue_t fused;
} epilogues[GEMM_EPILOGUES] = {
    [GEMM_PLAIN] = {"plain", CUBLASLT_EPILOGUE_DEFAULT},
    [GEMM_BIAS] = {"bias", CUBLASLT_EPILOGUE_BIAS},
    [GEMM_BIAS_GELU] = {"bias_gelu", CUBLASLT_EPILOGUE_GELU_AUX_BIAS},
    [GEMM_GELU_GRAD] = {"gelu_grad", CUBLASLT_EPILOGUE_DGELU},
    [GEMM_ROW_SUMS] = {"row_sums", CUBLASLT_EPILOGUE_BGRADB}, /* its B is our A */
};

/* ---- the key of a product */

/* The largest power of two that divides all addresses, but no more than anyone asks for. */
static int common_alignment(const struct GemmProduct *p) {
    uintptr_t bits = (uintptr_t)p->a.at | (uintptr_t)p->b.at | (uintptr_t)p->c |
                     (uintptr_t)p->bias | (uintptr_t)p->aux | WIDEST_ACCESS;
    return (int)(bits & -bits);
}

static void write_key(char key[GEMM_KEY_CHARS], const struct GemmProduct *p) {
    const char *in = dtype_name(p->in);
    snprintf(key, GEMM_KEY_CHARS, "%s m=%lld n=%lld k=%lld a=%s%s b=%s%s c%s=%s align=%d",
             epilogues[p->epilogue].name, (long long)p->m, (long long)p->n, (long long)p->k, in,
             p->a.transposed ? "^T" : "", in, p->b.transposed ? "^T" : "", p->accumulate ? "+" : "",
             dtype_name(p->out), common_alignment(p));
}

/* ---- the product for the library */

/* The workspace: first the sums that an epilogue makes, then what the library may use. */
struct Scratch {
    float *sums;
    char *library;
    size_t library_bytes;
};

static struct Scratch scratch_for(const struct Backend *be, const struct GemmProduct *p) {
    int64_t n_bytes = p->epilogue == GEMM_ROW_SUMS ? p->m * (int64_t)sizeof(float) : 0;
    n_bytes = (n_bytes + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    int64_t all_bytes = cuda_state(be)->workspace_bytes;
    char *sums = cuda_workspace(be, all_bytes);
    return (struct Scratch){(float *)sums, sums + n_bytes, (size_t)(all_bytes - n_bytes)};
}

static cudaDataType library_type(enum Dtype dtype) {
    TMD_CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16, "no products of %s", dtype_name(dtype));
    return dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

#define SET_DESC(desc, attribute, value)                                                           \
    CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_##attribute, &(value),  \
                                                sizeof(value)))

/* Addresses that are not parameters of the product's call. */
static void bind_addresses(const struct GemmPlan *plan, const struct GemmProduct *p,
                           const void *bias_or_sums, const void *aux) {
    if (p->bias || p->sums) SET_DESC(plan->desc, BIAS_POINTER, bias_or_sums);
    if (p->aux) SET_DESC(plan->desc, EPILOGUE_AUX_POINTER, aux);
}

/* Where the library only looks at an address to see its alignment, it gets one that is as badly
 * aligned as those of any product with this key may be. */
static void promise_alignment(const struct GemmPlan *plan, const struct GemmProduct *p) {
    const void *address = (const void *)(uintptr_t)common_alignment(p);
    bind_addresses(plan, p, address, address);
}

/* A matrix of ours, [rows, cols] as it lies, is one of `cols` rows for the library. */
static cublasLtMatrixLayout_t layout(enum Dtype dtype, int64_t rows, int64_t cols) {
    cublasLtMatrixLayout_t out;
    CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&out, library_type(dtype), (uint64_t)cols,
                                            (uint64_t)rows, cols));
    return out;
}

static cublasLtMatrixLayout_t operand_layout(enum Dtype dtype, struct GemmMatrix x, int64_t rows,
                                             int64_t cols) {
    return x.transposed ? layout(dtype, cols, rows) : layout(dtype, rows, cols);
}

static struct GemmPlan *plan_create(const struct GemmProduct *p) {
    struct GemmPlan *plan = xcalloc(sizeof *plan);
    write_key(plan->key, p);
    plan->a = operand_layout(p->in, p->a, p->m, p->k);
    plan->b = operand_layout(p->in, p->b, p->k, p->n);
    plan->c = layout(p->out, p->m, p->n);

    /* float32 products stay float32: this compute type never rounds operands to TF32 */
    CUBLAS_CHECK(cublasLtMatmulDescCreate(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    int32_t first = p->b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    int32_t second = p->a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    SET_DESC(plan->desc, TRANSA, first);
    SET_DESC(plan->desc, TRANSB, second);
    uint32_t epilogue = epilogues[p->epilogue].fused;
    SET_DESC(plan->desc, EPILOGUE, epilogue);
    if (p->aux) SET_DESC(plan->desc, EPILOGUE_AUX_LD, p->n);
    return plan;
}

static void plan_destroy(struct GemmPlan *plan) {
    CUBLAS_CHECK(cublasLtMatmulDescDestroy(plan->desc));
    CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(plan->a));
    CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(plan->b));
    CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(plan->c));
    free(plan);
}

/* ---- the two ways */

cublasStatus_t gemm_run_fused(const struct Backend *be, const struct GemmPlan *plan,
                              const struct GemmProduct *p, const cublasLtMatmulAlgo_t *algo) {
    struct CudaState *state = cuda_state(be);
    struct Scratch scratch = scratch_for(be, p);
    float alpha = 1.0f, beta = p->accumulate ? 1.0f : 0.0f;
    bind_addresses(plan, p, p->sums ? scratch.sums : p->bias, p->aux);
    cublasStatus_t status = cublasLtMatmul(
        state->gemm->handle, plan->desc, &alpha, p->b.at, plan->b, p->a.at, plan->a, &beta, p->c,
        plan->c, p->c, plan->c, algo, scratch.library, scratch.library_bytes, state->stream);
    if (status == CUBLAS_STATUS_SUCCESS && p->epilogue == GEMM_ROW_SUMS)
        cuda_partials_add(be, p->sums, cuda_workspace(be, p->m * (int64_t)sizeof(float)), 1, p->m);
    return status;
}

void gemm_run_separate(const struct Backend *be, const struct GemmProduct *p) {
    struct GemmProduct simpler = *p;
    simpler.epilogue = GEMM_PLAIN;
    simpler.bias = simpler.aux = NULL;
    simpler.sums = NULL;
    switch (p->epilogue) {
    case GEMM_BIAS: /* added before the one rounding, as in the library */
        simpler.accumulate = true;
        cuda_rows_fill(be, p->c, p->bias, p->m, p->n);
        cuda_gemm(be, &simpler);
        break;
    case GEMM_BIAS_GELU:
        simpler.epilogue = GEMM_BIAS;
        simpler.bias = p->bias;
        simpler.c = p->aux;
        cuda_gemm(be, &simpler);
        cuda_gelu(be, p->c, p->aux, p->m * p->n);
        break;
    case GEMM_GELU_GRAD:
        cuda_gemm(be, &simpler);
        cuda_gelu_grad(be, p->c, p->aux, p->m * p->n);
        break;
    case GEMM_ROW_SUMS:
        TMD_CHECK(p->a.transposed && p->in == be->act_dtype, "only columns of Acts can be summed");
        cuda_gemm(be, &simpler);
        cuda_column_sums(be, p->sums, p->a.at, p->k, p->m);
        break;
    default:
        fatal_at(__FILE__, __LINE__, "p->epilogue", "no kernel of ours for %s",
                 epilogues[p->epilogue].name);
    }
}

/* ---- the choice between them */

static bool library_takes(const struct GemmProduct *p) {
    return !p->aux || p->n % AUX_LD_MULTIPLE == 0;
}

/* The library's suggestions, best first; none where it has nothing for an epilogue. */
static int find_candidates(const struct Backend *be, const struct GemmPlan *plan,
                           const struct GemmProduct *p,
                           cublasLtMatmulHeuristicResult_t out[GEMM_MAX_CANDIDATES]) {
    struct Scratch scratch = scratch_for(be, p);
    uint64_t workspace_bytes = scratch.library_bytes;
    /* sums that are split over k stay float32 until they are added up, in a step of its own */
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    uint32_t alignment = (uint32_t)common_alignment(p);
    cublasLtMatmulPreference_t preference;
    CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
#define PREFER(attribute, value)                                                                   \
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(                                             \
        preference, CUBLASLT_MATMUL_PREF_##attribute, &(value), sizeof(value)))
    PREFER(MAX_WORKSPACE_BYTES, workspace_bytes);
    PREFER(REDUCTION_SCHEME_MASK, reductions);
    PREFER(MIN_ALIGNMENT_A_BYTES, alignment);
    PREFER(MIN_ALIGNMENT_B_BYTES, alignment);
    PREFER(MIN_ALIGNMENT_C_BYTES, alignment);
    PREFER(MIN_ALIGNMENT_D_BYTES, alignment);
    promise_alignment(plan, p);
    int n_found = 0, n = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        cuda_state(be)->gemm->handle, plan->desc, plan->b, plan->a, plan->c, plan->c, preference,
        GEMM_MAX_CANDIDATES, out, &n_found);
    CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    if (status != CUBLAS_STATUS_SUCCESS) n_found = 0;
    for (int i = 0; i < n_found; i++)
        if (out[i].state == CUBLAS_STATUS_SUCCESS) out[n++] = out[i];
    TMD_CHECK(n > 0 || p->epilogue != GEMM_PLAIN, "cuBLASLt %zu has no algorithm for %s: %s",
              cublasLtGetVersion(), plan->key, cublasLtGetStatusString(status));
    return n;
}

bool gemm_algo_fits(const struct Backend *be, const struct GemmPlan *plan,
                    const struct GemmProduct *p, const cublasLtMatmulAlgo_t *algo) {
    struct Scratch scratch = scratch_for(be, p);
    cublasLtMatmulHeuristicResult_t result;
    promise_alignment(plan, p);
    return cublasLtMatmulAlgoCheck(cuda_state(be)->gemm->handle, plan->desc, plan->b, plan->a,
                                   plan->c, plan->c, algo, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= scratch.library_bytes;
}

static struct GemmChoice choose(const struct Backend *be, const struct GemmPlan *plan,
                                const struct GemmProduct *p) {
    cublasLtMatmulHeuristicResult_t candidates[GEMM_MAX_CANDIDATES];
    int n = library_takes(p) ? find_candidates(be, plan, p, candidates) : 0;
    if (n == 0) return (struct GemmChoice){.fused = false};
    if (!cuda_state(be)->gemm->cache)
        return (struct GemmChoice){.fused = true, .algo = candidates[0].algo};
    return gemm_tune(be, plan, p, candidates, n);
}

static const struct GemmPlan *plan_for(const struct Backend *be, const struct GemmProduct *p) {
    struct CudaGemm *gemm = cuda_state(be)->gemm;
    char key[GEMM_KEY_CHARS];
    write_key(key, p);
    for (const struct GemmPlan *plan = gemm->plans; plan; plan = plan->next)
        if (strcmp(plan->key, key) == 0) return plan;

    TMD_CHECK(!p->accumulate || p->epilogue == GEMM_PLAIN || p->epilogue == GEMM_ROW_SUMS, "%s",
              key);
    struct GemmPlan *plan = plan_create(p);
    plan->choice = choose(be, plan, p);
    plan->next = gemm->plans;
    gemm->plans = plan;
    return plan;
}

void cuda_gemm(const struct Backend *be, const struct GemmProduct *p) {
    const struct GemmPlan *plan = plan_for(be, p);
    if (!plan->choice.fused) {
        gemm_run_separate(be, p);
        return;
    }
    cublasStatus_t status = gemm_run_fused(be, plan, p, &plan->choice.algo);
    TMD_CHECK(status == CUBLAS_STATUS_SUCCESS, "cublasLtMatmul on device %d, %s: %s",
              cuda_device_at_work(), plan->key, cublasLtGetStatusString(status));
}

struct CudaGemm *cuda_gemm_create(const struct CudaState *state) {
    struct CudaGemm *gemm = xcalloc(sizeof *gemm);
    CUBLAS_CHECK(cublasLtCreate(&gemm->handle));
    if (state->tune_gemm) {
        struct cudaDeviceProp properties;
        CUDA_CHECK(cudaGetDeviceProperties(&properties, state->device));
        gemm->cache = gemm_cache_open(properties.name, cublasLtGetVersion());
    }
    return gemm;
}

void cuda_gemm_destroy(struct CudaGemm *gemm) {
    while (gemm->plans) {
        struct GemmPlan *plan = gemm->plans;
        gemm->plans = plan->next;
        plan_destroy(plan);
    }
    gemm_cache_close(gemm->cache);
    CUBLAS_CHECK(cublasLtDestroy(gemm->handle));
    free(gemm);
}
