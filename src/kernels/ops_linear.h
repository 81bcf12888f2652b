/* Linear layers y = x W^T + b: x [rows, n_in], W [n_out, n_in], b [n_out], y [rows, n_out].
 *
 * Two precisions: on tokens (Act) and, for the short vectors that times become, in float32. */
#ifndef TMD_OPS_LINEAR_H
#define TMD_OPS_LINEAR_H

struct LinearShape {
    int64_t rows, n_in, n_out;
};

/* linear_forward              y = x W^T + b
 * linear_gelu_forward         pre = x W^T + b, y = gelu(pre), tanh approximation:
 *                             gelu(z) = z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))
 * linear_backward_input       dx = dy W;  with `accumulate`: dx += dy W
 * linear_gelu_backward_input  dpre = (dy W) * gelu'(pre): the way back through a layer W whose input
 *                             came from linear_gelu_forward; pre, dpre [rows, n_in]
 * linear_backward_params      dw += dy^T x, db += column sums of dy (db may be NULL)
 * linear_f32_*                the same on float32 vectors */
#define LINEAR_OPS(OP)                                                                             \
    OP(linear_forward,                                                                             \
       (Act * y, const Act *x, const Act *w, const Act *b, struct LinearShape shape),              \
       (y, x, w, b, shape))                                                                        \
    OP(linear_gelu_forward,                                                                        \
       (Act * y, Act * pre, const Act *x, const Act *w, const Act *b, struct LinearShape shape),   \
       (y, pre, x, w, b, shape))                                                                   \
    OP(linear_backward_input,                                                                      \
       (Act * dx, const Act *dy, const Act *w, struct LinearShape shape, bool accumulate),         \
       (dx, dy, w, shape, accumulate))                                                             \
    OP(linear_gelu_backward_input,                                                                 \
       (Act * dpre, const Act *dy, const Act *w, const Act *pre, struct LinearShape shape),        \
       (dpre, dy, w, pre, shape))                                                                  \
    OP(linear_backward_params,                                                                     \
       (float *dw, float *db, const Act *x, const Act *dy, struct LinearShape shape),              \
       (dw, db, x, dy, shape))                                                                     \
    OP(linear_f32_forward,                                                                         \
       (float *y, const float *x, const float *w, const float *b, struct LinearShape shape),       \
       (y, x, w, b, shape))                                                                        \
    OP(linear_f32_backward_input,                                                                  \
       (float *dx, const float *dy, const float *w, struct LinearShape shape),                     \
       (dx, dy, w, shape))                                                                         \
    OP(linear_f32_backward_params,                                                                 \
       (float *dw, float *db, const float *x, const float *dy, struct LinearShape shape),          \
       (dw, db, x, dy, shape))

#endif
