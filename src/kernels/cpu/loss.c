/* Losses and their gradients.  A sample is summed by one thread, in runs, so that neither the number
 * of threads nor the other samples of a batch change its value. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { RUN = 1024 };

static int64_t run_end(int64_t run, int64_t n) {
    return n - run < RUN ? n : run + RUN;
}

void cpu_squares_sum(const struct Backend *be, double *out, const float *x, int64_t batch,
                     int64_t n_per_sample) {
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        const float *xb = x + b * n_per_sample;
        double total = 0.0;
        for (int64_t run = 0; run < n_per_sample; run += RUN) {
            float part = 0.0f;
            int64_t end = run_end(run, n_per_sample);
#pragma omp simd reduction(+ : part)
            for (int64_t i = run; i < end; i++) part += xb[i] * xb[i];
            total += part;
        }
        out[b] = total;
    }
}

void cpu_adaptive_loss(const struct Backend *be, double *loss, double *sq, float *du, const float *u,
                       const float *target, double c, double scale, int64_t batch,
                       int64_t n_per_sample) {
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        int64_t at = b * n_per_sample;
        double total = 0.0;
        for (int64_t run = 0; run < n_per_sample; run += RUN) {
            float part = 0.0f;
            int64_t end = run_end(run, n_per_sample);
#pragma omp simd reduction(+ : part)
            for (int64_t i = run; i < end; i++) {
                float difference = u[at + i] - target[at + i];
                du[at + i] = difference;
                part += difference * difference;
            }
            total += part;
        }
        sq[b] = total;
        loss[b] = total / (total + c);
        float factor = (float)(2.0 * scale / (total + c));
        for (int64_t i = 0; i < n_per_sample; i++) du[at + i] *= factor;
    }
}

/* One sample's norm without its factor t: |v_teacher - v_fake|_1 or |x_hat - eps + v_teacher|_1. */
static double vsd_distance(enum VsdNorm norm, const float *x_hat, const float *eps,
                           const float *v_fake, const float *v_teacher, int64_t n) {
    double total = 0.0;
    for (int64_t run = 0; run < n; run += RUN) {
        float part = 0.0f;
        int64_t end = run_end(run, n);
        if (norm == VSD_NORM_PAPER) {
#pragma omp simd reduction(+ : part)
            for (int64_t i = run; i < end; i++) part += fabsf(v_teacher[i] - v_fake[i]);
        } else {
#pragma omp simd reduction(+ : part)
            for (int64_t i = run; i < end; i++) part += fabsf(x_hat[i] - eps[i] + v_teacher[i]);
        }
        total += part;
    }
    return total;
}

void cpu_vsd_direction(const struct Backend *be, double *loss, float *direction, const float *x_hat,
                       const float *eps, const float *v_fake, const float *v_teacher,
                       const double *host_t, enum VsdNorm norm, int64_t batch,
                       int64_t n_per_sample) {
    (void)be;
    double least = norm == VSD_NORM_PAPER ? 0.0 : 1e-6 * (double)n_per_sample;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        int64_t at = b * n_per_sample;
        double t = host_t[b], inner = 0.0;
        double total = t * vsd_distance(norm, x_hat + at, eps + at, v_fake + at, v_teacher + at,
                                        n_per_sample) + least;
        float factor = total == 0.0 ? 0.0f : (float)(t / total); /* no difference, no direction */
        for (int64_t run = 0; run < n_per_sample; run += RUN) {
            float part = 0.0f;
            int64_t end = run_end(run, n_per_sample);
#pragma omp simd reduction(+ : part)
            for (int64_t i = run; i < end; i++) {
                float g = (v_teacher[at + i] - v_fake[at + i]) * factor;
                part += g * x_hat[at + i];
                direction[at + i] = g;
            }
            inner += part;
        }
        loss[b] = inner;
    }
}

void cpu_softplus_loss(const struct Backend *be, double *loss, float *dx, const float *x, double sign,
                       double scale, int64_t batch, int64_t n_logits) {
    (void)be;
    for (int64_t b = 0; b < batch; b++) {
        double total = 0.0;
        for (int64_t k = 0; k < n_logits; k++) {
            double z = sign * (double)x[b * n_logits + k];
            total += z > 0.0 ? z + log1p(exp(-z)) : log1p(exp(z));
            if (dx)
                dx[b * n_logits + k] = (float)(scale * sign / (1.0 + exp(-z)) / (double)n_logits);
        }
        loss[b] = total / (double)n_logits;
    }
}
