/* Normalisations over the channels of a token, and the modulation and residuals around them. */
#ifndef TMD_OPS_NORM_H
#define TMD_OPS_NORM_H

/* Layer norm with a shift and a scale in float32:
 *     xhat = (x - mean) rstd,  y = xhat (one + scale) + shift
 * `one` = 1 and `stride` = distance between the samples' rows of scale and shift: AdaLN modulation
 * (Peebles & Xie 2023).  `one` = 0 and `stride` = 0: the usual weight and bias, shared by all. */
struct NormShape {
    int64_t batch, tokens, dim;
    int64_t stride; /* of scale, shift, gate and their gradients, from sample to sample, in elements */
    float one, eps;
};

/* RMS norm over all `dim` channels, y = x rstd w, then rotary embedding of each head's interleaved
 * pairs by the token's angles.  Rows of x (and dx) are `x_stride` apart, so that q, k or v can be a
 * slice of one projection; rows of y (and dy) are dense.
 * cos_sin [tokens, dim / heads / 2, 2] float32, or NULL for no rotation. */
struct QkNormShape {
    int64_t batch, tokens, dim, heads, x_stride;
    float eps;
};

/* layer_norm_forward     y [B, S, D]; mean, rstd [B, S] are saved for backward
 * layer_norm_backward    dx = (or += with `accumulate`: the residual's gradient is already there);
 *                        dscale, dshift accumulate at their sample's row (both or neither NULL)
 * gate_forward           out = x + h * gate, gate [D] per sample at `stride`; NULL: out = x + h;
 *                        out may be x
 * gate_norm_forward      both in one: out as gate_forward makes it, with the gates gate_stride
 *                        apart, and y, mean, rstd as layer_norm_forward makes them of `out`, which
 *                        is rounded to its type before: the norm is that of what backward reads
 * gate_backward          dh = dout * gate, dgate += sum over tokens of dout * h
 * qk_norm_forward        y, and rstd [B, S] saved
 * qk_norm_backward       dx, dw += */
#define NORM_OPS(OP)                                                                               \
    OP(layer_norm_forward,                                                                         \
       (Act * y, float *mean, float *rstd, const Act *x, const float *scale, const float *shift,   \
        struct NormShape shape),                                                                   \
       (y, mean, rstd, x, scale, shift, shape))                                                    \
    OP(layer_norm_backward,                                                                        \
       (Act * dx, float *dscale, float *dshift, const Act *dy, const Act *x, const float *mean,    \
        const float *rstd, const float *scale, struct NormShape shape, bool accumulate),           \
       (dx, dscale, dshift, dy, x, mean, rstd, scale, shape, accumulate))                          \
    OP(gate_forward,                                                                               \
       (Act * out, const Act *x, const Act *h, const float *gate, struct NormShape shape),         \
       (out, x, h, gate, shape))                                                                   \
    OP(gate_norm_forward,                                                                          \
       (Act * out, Act * y, float *mean, float *rstd, const Act *x, const Act *h,                  \
        const float *gate, int64_t gate_stride, const float *scale, const float *shift,            \
        struct NormShape shape),                                                                   \
       (out, y, mean, rstd, x, h, gate, gate_stride, scale, shift, shape))                         \
    OP(gate_backward,                                                                              \
       (Act * dh, float *dgate, const Act *dout, const Act *h, const float *gate,                  \
        struct NormShape shape),                                                                   \
       (dh, dgate, dout, h, gate, shape))                                                          \
    OP(qk_norm_forward,                                                                            \
       (Act * y, float *rstd, const Act *x, const float *w, const float *cos_sin,                  \
        struct QkNormShape shape),                                                                 \
       (y, rstd, x, w, cos_sin, shape))                                                            \
    OP(qk_norm_backward,                                                                           \
       (Act * dx, float *dw, const Act *dy, const Act *x, const float *rstd, const float *w,       \
        const float *cos_sin, struct QkNormShape shape),                                           \
       (dx, dw, dy, x, rstd, w, cos_sin, shape))

#endif
