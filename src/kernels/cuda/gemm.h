/* Matrix products on the device: row-major operands in cuBLASLt, which thinks in columns.
 *
 *     C [m, n] = op(A) [m, k] op(B) [k, n],      op(X) = X or X^T, all dense
 *
 * followed by an epilogue.  Sums are float32 whatever the types; the result is rounded once.
 *
 * A matrix that lies row by row is, read column by column, its transpose.  So the library is asked
 * for C^T = op(B)^T op(A)^T: our B is its first operand and our A the second, our n is its number
 * of rows, every leading dimension is the length of one of our rows, and because both views of an
 * operand are transposed alike, the transposition flags stay what they are.  A bias per column of C
 * is, for the library, a bias per row, as it wants it.
 *
 * How a product is computed is decided when its key (shape, types, epilogue, alignment) is first
 * seen, and stays: by the library's first suggestion or, with CudaState.tune_gemm, by timing all of
 * them.  Where the library has nothing for an epilogue, or is slower with it, the epilogue is done
 * by kernels of ours.  The first sight of a key waits for the device: it may not lie inside the
 * capture of a graph. */
#ifndef TMD_CUDA_GEMM_H
#define TMD_CUDA_GEMM_H

#include "kernels/cuda/cuda_state.h"

enum GemmEpilogue {
    GEMM_PLAIN,
    GEMM_BIAS,      /* C += bias, to every row */
    GEMM_BIAS_GELU, /* aux = C + bias, C = gelu(aux) */
    GEMM_GELU_GRAD, /* C *= gelu'(aux) */
    GEMM_ROW_SUMS,  /* sums += the sum of each row of op(A) */
    GEMM_EPILOGUES
};

struct GemmMatrix {
    const void *at;
    bool transposed; /* it lies in memory as the transpose of what the product takes */
};

struct GemmProduct {
    int64_t m, n, k;
    struct GemmMatrix a, b;
    void *c;
    enum Dtype in, out; /* of A and B; of C, bias and aux: DTYPE_F32 or DTYPE_BF16 */
    bool accumulate;    /* C += ...; with GEMM_PLAIN and GEMM_ROW_SUMS only */
    enum GemmEpilogue epilogue;
    const void *bias; /* [n] */
    void *aux;        /* [m, n] */
    float *sums;      /* [m], always accumulates */
};

/* Enqueues the product.  C, aux and sums overlap none of the operands. */
void cuda_gemm(const struct Backend *be, const struct GemmProduct *product);

#endif
