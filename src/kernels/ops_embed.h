/* Times, modulations, and what joins the main feature with the inner latent. */
#ifndef TMD_OPS_EMBED_H
#define TMD_OPS_EMBED_H

/* sinusoid              out [B, dim] = [cos(a_i), sin(a_i)], a_i = 1000 t 10000^(-i / (dim / 2)),
 *                       computed in float64 from t, HOST memory [B]: float32 would lose digits
 *                       of 1000 t
 * silu_forward          y = x sigmoid(x)
 * silu_backward         dx = dy silu'(x);  accumulates with `accumulate`
 * add_f32               out = a + b
 * rows_add              out[b] = in[b] + row, in and out [B, n] with the rows of `in` in_stride apart
 * rows_add_backward     drow += sum_b dout[b]; din[b] += dout[b]   (either may be NULL)
 * act_from_f32          y = x in the activation type
 * act_to_f32            y = x
 * act_add               out = a + b
 * mix_forward           out = (1 - g) m + g h, g = sigmoid(logit[0])
 * mix_backward          dm = (1 - g) dout, dh = g dout, dlogit += g (1 - g) sum dout (h - m)
 * columns_join          out [rows, 2 D] = [a, b]
 * columns_split         a, b [rows, D] = the halves of in */
#define EMBED_OPS(OP)                                                                              \
    OP(sinusoid, (float *out, const double *host_t, int64_t batch, int64_t dim),                   \
       (out, host_t, batch, dim))                                                                  \
    OP(silu_forward, (float *y, const float *x, int64_t n_elems), (y, x, n_elems))                 \
    OP(silu_backward,                                                                              \
       (float *dx, const float *dy, const float *x, int64_t n_elems, bool accumulate),             \
       (dx, dy, x, n_elems, accumulate))                                                           \
    OP(add_f32, (float *out, const float *a, const float *b, int64_t n_elems),                     \
       (out, a, b, n_elems))                                                                       \
    OP(rows_add,                                                                                   \
       (float *out, const float *in, int64_t in_stride, const float *row, int64_t batch,           \
        int64_t n_elems),                                                                          \
       (out, in, in_stride, row, batch, n_elems))                                                  \
    OP(rows_add_backward,                                                                          \
       (float *din, int64_t din_stride, float *drow, const float *dout, int64_t batch,             \
        int64_t n_elems),                                                                          \
       (din, din_stride, drow, dout, batch, n_elems))                                              \
    OP(act_from_f32, (Act * y, const float *x, int64_t n_elems), (y, x, n_elems))                  \
    OP(act_to_f32, (float *y, const Act *x, int64_t n_elems), (y, x, n_elems))                     \
    OP(act_add, (Act * out, const Act *a, const Act *b, int64_t n_elems), (out, a, b, n_elems))    \
    OP(mix_forward,                                                                                \
       (Act * out, const Act *m, const Act *h, const float *logit, int64_t n_elems),               \
       (out, m, h, logit, n_elems))                                                                \
    OP(mix_backward,                                                                               \
       (Act * dm, Act * dh, float *dlogit, const Act *dout, const Act *m, const Act *h,            \
        const float *logit, int64_t n_elems),                                                      \
       (dm, dh, dlogit, dout, m, h, logit, n_elems))                                               \
    OP(columns_join, (Act * out, const Act *a, const Act *b, int64_t rows, int64_t dim),           \
       (out, a, b, rows, dim))                                                                     \
    OP(columns_split, (Act * a, Act * b, const Act *in, int64_t rows, int64_t dim),                \
       (a, b, in, rows, dim))

#endif
