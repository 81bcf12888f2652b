/* What kernels of ours do to a product before or after it: the epilogues that cuBLASLt does not
 * offer for a type or a size, and those where two passes are faster than its one. */
#ifndef TMD_CUDA_GEMM_EPILOGUE_H
#define TMD_CUDA_GEMM_EPILOGUE_H

#include "kernels/cuda/cuda_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = gelu(pre), tanh approximation as in ops_linear.h. */
void cuda_gelu(const struct Backend *be, Act *y, const Act *pre, int64_t n_elems);
/* d *= gelu'(pre) */
void cuda_gelu_grad(const struct Backend *be, Act *d, const Act *pre, int64_t n_elems);

/* Every one of the `rows` rows of out [rows, cols] becomes row [cols]. */
void cuda_rows_fill(const struct Backend *be, Act *out, const Act *row, int64_t rows, int64_t cols);

/* sums [cols] += the sums of the columns of x [rows, cols]; partial sums lie in the workspace. */
void cuda_column_sums(const struct Backend *be, float *sums, const Act *x, int64_t rows,
                      int64_t cols);
/* sums [cols] += the sums of the columns of partials [n_partials, cols], in double. */
void cuda_partials_add(const struct Backend *be, float *sums, const float *partials,
                       int64_t n_partials, int64_t cols);

#ifdef __cplusplus
}
#endif

#endif
