/* Matrices and descriptors of one correct call of cublasLtMatmul. */
#include "cublaslt_call.h"

#include <stdlib.h>

#include "dtype.h"
#include "error.h"
#include "philox.h"

static enum Dtype dtype_of(cudaDataType type) {
    return type == CUDA_R_32F ? DTYPE_F32 : DTYPE_BF16;
}

void matrix_upload(const struct Call *call, struct Matrix *x) {
    enum Dtype dtype = dtype_of(x->type);
    unsigned char *bytes = xmalloc((size_t)x->n_bytes);
    dtype_from_f32(bytes, x->values, dtype, x->n_bytes / dtype_bytes(dtype));
    dtype_to_f32(x->values, bytes, dtype, x->n_bytes / dtype_bytes(dtype));
    CUDA_OK(cudaMemcpyAsync(x->device, bytes, (size_t)x->n_bytes, cudaMemcpyHostToDevice,
                            call->stream));
    free(bytes);
}

void matrix_download(const struct Call *call, const struct Matrix *x, float *values) {
    enum Dtype dtype = dtype_of(x->type);
    unsigned char *bytes = xmalloc((size_t)x->n_bytes);
    CUDA_OK(cudaMemcpyAsync(bytes, x->device, (size_t)x->n_bytes, cudaMemcpyDeviceToHost,
                            call->stream));
    CUDA_OK(cudaStreamSynchronize(call->stream));
    dtype_to_f32(values, bytes, dtype, x->n_bytes / dtype_bytes(dtype));
    free(bytes);
}

static struct Matrix matrix_make(const struct Call *call, cudaDataType type, int64_t rows,
                                 int64_t cols, int64_t ld, uint32_t seed) {
    struct Matrix x = {.type = type, .rows = rows, .cols = cols, .ld = ld};
    int64_t n_elems = (cols - 1) * ld + rows;
    x.n_bytes = n_elems * dtype_bytes(dtype_of(type));
    x.values = xcalloc((size_t)(ld * cols) * sizeof *x.values);
    for (int64_t i = 0; i < n_elems; i++)
        x.values[i] = (float)philox_uniform(philox(1, (uint32_t)i, seed, 0, 0).word[0]) - 0.5f;
    CUDA_OK(cudaMalloc(&x.device, (size_t)x.n_bytes));
    matrix_upload(call, &x);
    return x;
}

static void matrix_free(struct Matrix *x) {
    CUDA_OK(cudaFree(x->device));
    free(x->values);
}

cublasLtMatrixLayout_t matrix_layout(const struct Matrix *x) {
    cublasLtMatrixLayout_t layout;
    OK(cublasLtMatrixLayoutCreate(&layout, x->type, (uint64_t)x->rows, (uint64_t)x->cols, x->ld));
    return layout;
}

void call_begin(struct Call *call, struct Variant v) {
    *call = (struct Call){.transposed_a = v.transposed_a,
                          .transposed_b = v.transposed_b,
                          .epilogue = v.epilogue,
                          .alpha = 1.5f,
                          .beta = v.beta,
                          .workspace_bytes = WORKSPACE,
                          .alignment = 16,
                          .reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
                          .in_place = true};
    CUDA_OK(cudaStreamCreateWithFlags(&call->stream, cudaStreamNonBlocking));
    OK(cublasLtCreate(&call->handle));
    CUDA_OK(cudaMalloc(&call->workspace, WORKSPACE));
    int64_t a_rows = v.transposed_a ? K : M, b_rows = v.transposed_b ? N : K;
    call->a = matrix_make(call, v.in, a_rows, M + K - a_rows, a_rows + PAD, 1);
    call->b = matrix_make(call, v.in, b_rows, N + K - b_rows, b_rows + PAD, 2);
    call->c = matrix_make(call, v.out, M, N, M + PAD, 3);
    call->d = matrix_make(call, v.out, M, N, M + PAD, 4);
    call->bias = matrix_make(call, v.out, v.epilogue == SUMS ? N : M, 1, M, 5);
    call->aux = matrix_make(call, v.out, M, N, M + 8, 6);
}

void call_describe(struct Call *call) {
    OK(cublasLtMatmulDescCreate(&call->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
#define SET(attribute, value)                                                                      \
    OK(cublasLtMatmulDescSetAttribute(call->desc, CUBLASLT_MATMUL_DESC_##attribute, &(value),      \
                                      sizeof(value)))
    SET(TRANSA, call->transposed_a);
    SET(TRANSB, call->transposed_b);
    SET(EPILOGUE, call->epilogue);
    SET(BIAS_POINTER, call->bias.device);
    SET(EPILOGUE_AUX_POINTER, call->aux.device);
    SET(EPILOGUE_AUX_LD, call->aux.ld);
    call->a_layout = matrix_layout(&call->a);
    call->b_layout = matrix_layout(&call->b);
    call->c_layout = matrix_layout(&call->c);
    call->d_layout = matrix_layout(&call->d);
}

cublasStatus_t call_heuristic(struct Call *call, cublasLtMatmulHeuristicResult_t *results,
                              int *n_results) {
    cublasLtMatmulPreference_t preference;
    uint64_t workspace_bytes = call->workspace_bytes;
    OK(cublasLtMatmulPreferenceCreate(&preference));
#define PREFER(attribute, value)                                                                   \
    OK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_##attribute,          \
                                            &(value), sizeof(value)))
    PREFER(MAX_WORKSPACE_BYTES, workspace_bytes);
    PREFER(REDUCTION_SCHEME_MASK, call->reductions);
    PREFER(MIN_ALIGNMENT_A_BYTES, call->alignment);
    PREFER(MIN_ALIGNMENT_B_BYTES, call->alignment);
    PREFER(MIN_ALIGNMENT_C_BYTES, call->alignment);
    PREFER(MIN_ALIGNMENT_D_BYTES, call->alignment);
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        call->handle, call->desc, call->a_layout, call->b_layout, call->c_layout, call->d_layout,
        preference, MAX_ALGOS, results, n_results);
    OK(cublasLtMatmulPreferenceDestroy(preference));
    return status;
}

cublasStatus_t call_run(struct Call *call, const cublasLtMatmulAlgo_t *algo) {
    void *c = call->in_place ? call->d.device : call->c.device;
    return cublasLtMatmul(
        call->handle, call->desc, &call->alpha, call->a.device, call->a_layout, call->b.device,
        call->b_layout, &call->beta, c, call->in_place ? call->d_layout : call->c_layout,
        call->d.device, call->d_layout, algo, call->workspace, call->workspace_bytes, call->stream);
}

void call_end(struct Call *call) {
    CUDA_OK(cudaStreamSynchronize(call->stream));
    if (call->desc) {
        OK(cublasLtMatmulDescDestroy(call->desc));
        OK(cublasLtMatrixLayoutDestroy(call->a_layout));
        OK(cublasLtMatrixLayoutDestroy(call->b_layout));
        OK(cublasLtMatrixLayoutDestroy(call->c_layout));
        OK(cublasLtMatrixLayoutDestroy(call->d_layout));
    }
    struct Matrix *all[] = {&call->a, &call->b, &call->c, &call->d, &call->bias, &call->aux};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) matrix_free(all[i]);
    CUDA_OK(cudaFree(call->workspace));
    OK(cublasLtDestroy(call->handle));
    CUDA_OK(cudaStreamDestroy(call->stream));
}
