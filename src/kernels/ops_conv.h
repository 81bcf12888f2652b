/* What the convolutional discriminators are made of; activations [B, C, F, H, W]. */
#ifndef TMD_OPS_CONV_H
#define TMD_OPS_CONV_H

struct ConvShape {
    int64_t batch, in_channels, out_channels;
    /* each over frames, rows, columns; out = (in + 2 padding - kernel) / stride + 1 */
    int64_t in[3], out[3], kernel[3], stride[3], padding[3];
};

/* Group norm over (C / groups) channels and all positions, affine per channel, then leaky ReLU:
 * z = xhat w + b, y = z > 0 ? z : slope z. */
struct GroupNormShape {
    int64_t batch, channels, groups, positions;
    float eps, slope;
};

/* conv3d_*                w [out, in, kt, kh, kw], b [out]; dw, db accumulate
 * group_norm_leaky_*      mean, rstd [B, groups] saved; backward from the saved input x
 * mean_pool_*             y [B, C] float32 = mean over positions
 * leaky_relu_*            y = x > 0 ? x : slope x, float32 */
#define CONV_OPS(OP)                                                                               \
    OP(conv3d_forward,                                                                             \
       (Act * y, const Act *x, const Act *w, const Act *b, const struct ConvShape *shape),         \
       (y, x, w, b, shape))                                                                        \
    OP(conv3d_backward_input,                                                                      \
       (Act * dx, const Act *dy, const Act *w, const struct ConvShape *shape), (dx, dy, w, shape)) \
    OP(conv3d_backward_params,                                                                     \
       (float *dw, float *db, const Act *x, const Act *dy, const struct ConvShape *shape),         \
       (dw, db, x, dy, shape))                                                                     \
    OP(group_norm_leaky_forward,                                                                   \
       (Act * y, float *mean, float *rstd, const Act *x, const float *w, const float *b,           \
        struct GroupNormShape shape),                                                              \
       (y, mean, rstd, x, w, b, shape))                                                            \
    OP(group_norm_leaky_backward,                                                                  \
       (Act * dx, float *dw, float *db, const Act *dy, const Act *x, const float *mean,            \
        const float *rstd, const float *w, const float *b, struct GroupNormShape shape),           \
       (dx, dw, db, dy, x, mean, rstd, w, b, shape))                                               \
    OP(mean_pool_forward,                                                                          \
       (float *y, const Act *x, int64_t batch, int64_t channels, int64_t positions),               \
       (y, x, batch, channels, positions))                                                         \
    OP(mean_pool_backward,                                                                         \
       (Act * dx, const float *dy, int64_t batch, int64_t channels, int64_t positions),            \
       (dx, dy, batch, channels, positions))                                                       \
    OP(leaky_relu_forward, (float *y, const float *x, float slope, int64_t n_elems),               \
       (y, x, slope, n_elems))                                                                     \
    OP(leaky_relu_backward,                                                                        \
       (float *dx, const float *dy, const float *x, float slope, int64_t n_elems),                 \
       (dx, dy, x, slope, n_elems))

#endif
