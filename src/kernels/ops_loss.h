/* Losses, each with its gradient; sums in float64.  Scalars are per sample so that they do not depend
 * on how a batch is spread over ranks. */
#ifndef TMD_OPS_LOSS_H
#define TMD_OPS_LOSS_H

enum VsdNorm { VSD_NORM_PAPER, VSD_NORM_DMD2 };

/* squares_sum       out[b] = sum_i x[b, i]^2
 * adaptive_loss     sq[b] = |u - target|^2, loss[b] = sq / (sq + c) with the denominator held constant
 *                   in the gradient: du = scale 2 (u - target) / (sq + c)
 *                   (train/step_stage1.c)
 * vsd_direction     G = (g_fake - g_teacher) / norm per sample, and loss[b] = <G, x_hat>;
 *                   norm = |g_fake - g_teacher|_1 (paper), or |x_hat - g_teacher|_1 + 1e-6 n (dmd2);
 *                   G = 0 where the norm is 0 (a fake score that still equals the teacher).
 *                   Given are not the denoised g = x_hat_t - t v but the velocities v: near t = 0
 *                   each g is nearly x_hat, and of their difference float32 keeps few digits.  With
 *                   x_hat_t = (1 - t) x_hat + t eps the same differences are
 *                       g_fake - g_teacher = t (v_teacher - v_fake)
 *                       x_hat - g_teacher = t (x_hat - eps + v_teacher)
 *                   host_t: HOST memory [B]; eps is read for dmd2 only
 * softplus_loss     loss[b] = sum_k softplus(sign x[b, k]) / K;
 *                   dx = scale sign sigmoid(sign x) / K  (dx may be NULL) */
#define LOSS_OPS(OP)                                                                               \
    OP(squares_sum, (double *out, const float *x, int64_t batch, int64_t n_per_sample),            \
       (out, x, batch, n_per_sample))                                                              \
    OP(adaptive_loss,                                                                              \
       (double *loss, double *sq, float *du, const float *u, const float *target, double c,        \
        double scale, int64_t batch, int64_t n_per_sample),                                        \
       (loss, sq, du, u, target, c, scale, batch, n_per_sample))                                   \
    OP(vsd_direction,                                                                              \
       (double *loss, float *direction, const float *x_hat, const float *eps,                      \
        const float *v_fake, const float *v_teacher, const double *host_t, enum VsdNorm norm,      \
        int64_t batch, int64_t n_per_sample),                                                      \
       (loss, direction, x_hat, eps, v_fake, v_teacher, host_t, norm, batch, n_per_sample))        \
    OP(softplus_loss,                                                                              \
       (double *loss, float *dx, const float *x, double sign, double scale, int64_t batch,         \
        int64_t n_logits),                                                                         \
       (loss, dx, x, sign, scale, batch, n_logits))

#endif
