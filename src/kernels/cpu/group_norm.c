/* What stands between the discriminator's convolutions: group norm with leaky ReLU, mean pooling,
 * and the leaky ReLU of its MLP.
 *
 * With xhat = (x - mean) rstd, z = xhat w + b, dz = dy (1 or slope), and means over the group:
 *     dx = rstd (g - mean(g) - xhat mean(g xhat)),  g = dz w
 *     dw = sum dz xhat,  db = sum dz over samples and positions.
 * Backward goes over its input once by groups for dx and once by channels for dw and db, so that no
 * sum depends on the number of threads. */
#include <math.h>

#include "kernels/cpu/cpu.h"

/* ---- group norm, over the n positions of one channel of one sample */

struct Channel {
    float mean, rstd, w, b, slope;
};

/* dy times the derivative of the leaky ReLU at z, for an element whose norm is xhat. */
static inline float through_leaky(struct Channel c, float dy, float xhat) {
    return xhat * c.w + c.b > 0.0f ? dy : c.slope * dy;
}

static void channel_forward(float *y, const float *x, struct Channel c, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float z = (x[i] - c.mean) * c.rstd * c.w + c.b;
        y[i] = z > 0.0f ? z : c.slope * z;
    }
}

/* Adds sum dz and sum dz xhat. */
static void channel_sums(double *dz_sum, double *dz_xhat_sum, const float *dy, const float *x,
                         struct Channel c, int64_t n) {
    double sum = 0.0, product_sum = 0.0;
#pragma omp simd reduction(+ : sum, product_sum)
    for (int64_t i = 0; i < n; i++) {
        float xhat = (x[i] - c.mean) * c.rstd, dz = through_leaky(c, dy[i], xhat);
        sum += (double)dz;
        product_sum += (double)(dz * xhat);
    }
    *dz_sum += sum;
    *dz_xhat_sum += product_sum;
}

static void channel_dx(float *dx, const float *dy, const float *x, struct Channel c, float g_mean,
                       float g_xhat_mean, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float xhat = (x[i] - c.mean) * c.rstd, g = through_leaky(c, dy[i], xhat) * c.w;
        dx[i] = c.rstd * (g - g_mean - xhat * g_xhat_mean);
    }
}

/* Mean and 1 / sqrt(variance + eps) of n elements. */
static void statistics(float *mean, float *rstd, const float *x, float eps, int64_t n) {
    double sum = 0.0, squares = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    double mu = sum / (double)n;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) squares += ((double)x[i] - mu) * ((double)x[i] - mu);
    *mean = (float)mu;
    *rstd = (float)(1.0 / sqrt(squares / (double)n + (double)eps));
}

void cpu_group_norm_leaky_forward(const struct Backend *be, Act *y, float *mean, float *rstd,
                                  const Act *x, const float *w, const float *b,
                                  struct GroupNormShape s) {
    (void)be;
    int64_t width = s.channels / s.groups;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s.batch * s.groups; i++) {
        const float *xi = act_const_f32(x) + i * width * s.positions;
        float *yi = act_f32(y) + i * width * s.positions;
        statistics(&mean[i], &rstd[i], xi, s.eps, width * s.positions);
        for (int64_t k = 0; k < width; k++) {
            int64_t channel = i % s.groups * width + k;
            struct Channel c = {mean[i], rstd[i], w[channel], b[channel], s.slope};
            channel_forward(yi + k * s.positions, xi + k * s.positions, c, s.positions);
        }
    }
}

static void group_dx(float *dx, const float *dy, const float *x, float mean, float rstd,
                     const float *w, const float *b, struct GroupNormShape s) {
    int64_t width = s.channels / s.groups;
    double g_sum = 0.0, g_xhat_sum = 0.0;
    for (int64_t k = 0; k < width; k++) {
        double dz_sum = 0.0, dz_xhat_sum = 0.0;
        struct Channel c = {mean, rstd, w[k], b[k], s.slope};
        channel_sums(&dz_sum, &dz_xhat_sum, dy + k * s.positions, x + k * s.positions, c,
                     s.positions);
        g_sum += (double)w[k] * dz_sum;
        g_xhat_sum += (double)w[k] * dz_xhat_sum;
    }
    double n = (double)(width * s.positions);
    for (int64_t k = 0; k < width; k++) {
        int64_t at = k * s.positions;
        struct Channel c = {mean, rstd, w[k], b[k], s.slope};
        channel_dx(dx + at, dy + at, x + at, c, (float)(g_sum / n), (float)(g_xhat_sum / n),
                   s.positions);
    }
}

void cpu_group_norm_leaky_backward(const struct Backend *be, Act *dx, float *dw, float *db,
                                   const Act *dy, const Act *x, const float *mean,
                                   const float *rstd, const float *w, const float *b,
                                   struct GroupNormShape s) {
    (void)be;
    int64_t width = s.channels / s.groups;
    const float *dyf = act_const_f32(dy), *xf = act_const_f32(x);
    if (dw || db) {
#pragma omp parallel for schedule(static)
        for (int64_t channel = 0; channel < s.channels; channel++) {
            double dz_sum = 0.0, dz_xhat_sum = 0.0;
            for (int64_t sample = 0; sample < s.batch; sample++) {
                int64_t group = sample * s.groups + channel / width;
                int64_t at = (sample * s.channels + channel) * s.positions;
                struct Channel c = {mean[group], rstd[group], w[channel], b[channel], s.slope};
                channel_sums(&dz_sum, &dz_xhat_sum, dyf + at, xf + at, c, s.positions);
            }
            if (dw) dw[channel] += (float)dz_xhat_sum;
            if (db) db[channel] += (float)dz_sum;
        }
    }
    if (!dx) return;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s.batch * s.groups; i++) {
        int64_t first = i % s.groups * width, at = i * width * s.positions;
        group_dx(act_f32(dx) + at, dyf + at, xf + at, mean[i], rstd[i], w + first, b + first, s);
    }
}

/* ---- pooling and the MLP's activation */

void cpu_mean_pool_forward(const struct Backend *be, float *y, const Act *x, int64_t batch,
                           int64_t channels, int64_t positions) {
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < batch * channels; i++) {
        const float *xi = act_const_f32(x) + i * positions;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t p = 0; p < positions; p++) sum += (double)xi[p];
        y[i] = (float)(sum / (double)positions);
    }
}

void cpu_mean_pool_backward(const struct Backend *be, Act *dx, const float *dy, int64_t batch,
                            int64_t channels, int64_t positions) {
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < batch * channels; i++) {
        float *dxi = act_f32(dx) + i * positions;
        float share = (float)((double)dy[i] / (double)positions);
#pragma omp simd
        for (int64_t p = 0; p < positions; p++) dxi[p] = share;
    }
}

void cpu_leaky_relu_forward(const struct Backend *be, float *y, const float *x, float slope,
                            int64_t n_elems) {
    (void)be;
#pragma omp simd
    for (int64_t i = 0; i < n_elems; i++) y[i] = x[i] > 0.0f ? x[i] : slope * x[i];
}

void cpu_leaky_relu_backward(const struct Backend *be, float *dx, const float *dy, const float *x,
                             float slope, int64_t n_elems) {
    (void)be;
#pragma omp simd
    for (int64_t i = 0; i < n_elems; i++) dx[i] = x[i] > 0.0f ? dy[i] : slope * dy[i];
}
