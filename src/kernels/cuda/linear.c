/* Linear layers: one matrix product each, with what follows it as the product's epilogue. */
#include "kernels/cuda/gemm.h"

/* y = x W^T + b, and what `epilogue` makes of it. */
static struct GemmProduct forward_product(const struct Backend *be, Act *y, const Act *x,
                                          const Act *w, const Act *b, struct LinearShape s,
                                          enum GemmEpilogue epilogue) {
    return (struct GemmProduct){.m = s.rows,
                                .n = s.n_out,
                                .k = s.n_in,
                                .a = {x, false},
                                .b = {w, true},
                                .c = y,
                                .in = be->act_dtype,
                                .out = be->act_dtype,
                                .epilogue = epilogue,
                                .bias = b};
}

/* dx = dy W. */
static struct GemmProduct input_product(const struct Backend *be, Act *dx, const Act *dy,
                                        const Act *w, struct LinearShape s,
                                        enum GemmEpilogue epilogue) {
    return (struct GemmProduct){.m = s.rows,
                                .n = s.n_in,
                                .k = s.n_out,
                                .a = {dy, false},
                                .b = {w, false},
                                .c = dx,
                                .in = be->act_dtype,
                                .out = be->act_dtype,
                                .epilogue = epilogue};
}

void cuda_linear_forward(const struct Backend *be, Act *y, const Act *x, const Act *w, const Act *b,
                         struct LinearShape shape) {
    struct GemmProduct p = forward_product(be, y, x, w, b, shape, GEMM_BIAS);
    cuda_gemm(be, &p);
}

void cuda_linear_gelu_forward(const struct Backend *be, Act *y, Act *pre, const Act *x,
                              const Act *w, const Act *b, struct LinearShape shape) {
    struct GemmProduct p = forward_product(be, y, x, w, b, shape, GEMM_BIAS_GELU);
    p.aux = pre;
    cuda_gemm(be, &p);
}

void cuda_linear_backward_input(const struct Backend *be, Act *dx, const Act *dy, const Act *w,
                                struct LinearShape shape, bool accumulate) {
    struct GemmProduct p = input_product(be, dx, dy, w, shape, GEMM_PLAIN);
    p.accumulate = accumulate;
    cuda_gemm(be, &p);
}

void cuda_linear_gelu_backward_input(const struct Backend *be, Act *dpre, const Act *dy,
                                     const Act *w, const Act *pre, struct LinearShape shape) {
    struct GemmProduct p = input_product(be, dpre, dy, w, shape, GEMM_GELU_GRAD);
    p.aux = (Act *)pre;
    cuda_gemm(be, &p);
}

/* dw += dy^T x; the rows of dy^T, summed, are db. */
void cuda_linear_backward_params(const struct Backend *be, float *dw, float *db, const Act *x,
                                 const Act *dy, struct LinearShape s) {
    struct GemmProduct p = {.m = s.n_out,
                            .n = s.n_in,
                            .k = s.rows,
                            .a = {dy, true},
                            .b = {x, false},
                            .c = dw,
                            .in = be->act_dtype,
                            .out = DTYPE_F32,
                            .accumulate = true,
                            .epilogue = db ? GEMM_ROW_SUMS : GEMM_PLAIN,
                            .sums = db};
    cuda_gemm(be, &p);
}
