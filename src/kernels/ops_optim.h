/* The optimizer's passes over flat float32 buffers. */
#ifndef TMD_OPS_OPTIM_H
#define TMD_OPS_OPTIM_H

/* AdamW with decoupled decay (Loshchilov & Hutter 2019); `step` counts from 1; gradients are
 * multiplied by grad_scale (clipping, averaging) on the way in. */
struct AdamW {
    double lr, beta1, beta2, eps, weight_decay, grad_scale;
    int64_t step;
};

/* norm_squared  out[0] = sum x^2 in float64 (the same for the same input, every time)
 * adamw         m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
 *               w = w (1 - lr wd) - lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps);
 *               compute (may equal w, else in Act) gets the new w
 * ema_update    ema = decay ema + (1 - decay) w
 * scale_f32     x *= factor
 * weights_cast  compute = w in the activation type (for weights loaded rather than stepped) */
#define OPTIM_OPS(OP)                                                                              \
    OP(norm_squared, (double *out, const float *x, int64_t n_elems), (out, x, n_elems))            \
    OP(adamw,                                                                                      \
       (float *w, Act *compute, float *m, float *v, const float *g, struct AdamW how,              \
        int64_t n_elems),                                                                          \
       (w, compute, m, v, g, how, n_elems))                                                        \
    OP(ema_update, (float *ema, const float *w, double decay, int64_t n_elems),                    \
       (ema, w, decay, n_elems))                                                                   \
    OP(scale_f32, (float *x, double factor, int64_t n_elems), (x, factor, n_elems))                \
    OP(weights_cast, (Act * compute, const float *w, int64_t n_elems), (compute, w, n_elems))

#endif
