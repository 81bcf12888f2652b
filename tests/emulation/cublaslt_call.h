/* One call of the emulated cuBLASLt, correct until a test changes it: its matrices on the device,
 * its descriptors, its run. */
#ifndef TMD_TESTS_CUBLASLT_CALL_H
#define TMD_TESTS_CUBLASLT_CALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <cublasLt.h>

enum { M = 24, N = 10, K = 37, PAD = 3, WORKSPACE = 1 << 20, MAX_ALGOS = 16 };
enum {
    PLAIN = CUBLASLT_EPILOGUE_DEFAULT,
    BIAS = CUBLASLT_EPILOGUE_BIAS,
    GELU = CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
    GELU_GRAD = CUBLASLT_EPILOGUE_DGELU,
    SUMS = CUBLASLT_EPILOGUE_BGRADB
};

#define OK(call) assert_int_equal(call, CUBLAS_STATUS_SUCCESS)
#define CUDA_OK(call) assert_int_equal(call, cudaSuccess)

/* A matrix on the device, by columns, and its values as the device has them. */
struct Matrix {
    cudaDataType type;
    int64_t rows, cols, ld;
    float *values; /* [cols, ld] */
    void *device;
    int64_t n_bytes; /* of the allocation: the matrix alone */
};

/* D [M, N] = epilogue(alpha op(A) op(B) + beta C).  Everything is as it should be until a test
 * changes it. */
struct Call {
    cudaStream_t stream;
    cublasLtHandle_t handle;
    int32_t transposed_a, transposed_b;
    uint32_t epilogue;
    struct Matrix a, b, c, d, bias, aux;
    float alpha, beta;
    void *workspace;
    size_t workspace_bytes;
    uint32_t alignment; /* promised for A, B, C, D */
    uint32_t reductions;
    bool in_place; /* D is C */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a_layout, b_layout, c_layout, d_layout;
};

struct Variant {
    cudaDataType in, out;
    bool transposed_a, transposed_b;
    uint32_t epilogue;
    float beta;
};

/* Draws from (-1/2, 1/2). */
void call_begin(struct Call *call, struct Variant variant);
void call_end(struct Call *call);

/* Makes the library's objects from what the call says by now. */
void call_describe(struct Call *call);
cublasLtMatrixLayout_t matrix_layout(const struct Matrix *x);

cublasStatus_t call_heuristic(struct Call *call, cublasLtMatmulHeuristicResult_t *results,
                              int *n_results);
cublasStatus_t call_run(struct Call *call, const cublasLtMatmulAlgo_t *algo);

/* x->values to the device, and what it makes of them back into x->values. */
void matrix_upload(const struct Call *call, struct Matrix *x);
/* What the device holds, once the call's stream is done, [cols, ld]. */
void matrix_download(const struct Call *call, const struct Matrix *x, float *values);

#endif
