/* The optimizer's passes.  AdamW's factors are float64 on the host and float32 in the loop. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

void cpu_norm_squared(const struct Backend *be, double *out, const float *x, int64_t n_elems) {
    (void)be;
    enum { PARTS = 256, RUN = 1024 };
    double parts[PARTS];
    int64_t per_part = (n_elems + PARTS - 1) / PARTS;
#pragma omp parallel for schedule(static)
    for (int p = 0; p < PARTS; p++) {
        int64_t first = p * per_part, end = first + per_part < n_elems ? first + per_part : n_elems;
        parts[p] = 0.0;
        for (int64_t run = first; run < end; run += RUN) {
            int64_t run_end = end - run < RUN ? end : run + RUN;
            float part = 0.0f;
#pragma omp simd reduction(+ : part)
            for (int64_t i = run; i < run_end; i++) part += x[i] * x[i];
            parts[p] += part;
        }
    }
    out[0] = 0.0;
    for (int p = 0; p < PARTS; p++) out[0] += parts[p];
}

void cpu_adamw(const struct Backend *be, float *w, Act *compute, float *m, float *v, const float *g,
               struct AdamW how, int64_t n_elems) {
    (void)be;
    float beta1 = (float)how.beta1, beta2 = (float)how.beta2;
    float rest1 = (float)(1.0 - how.beta1), rest2 = (float)(1.0 - how.beta2);
    float grad_scale = (float)how.grad_scale, keep = (float)(1.0 - how.lr * how.weight_decay);
    float rate = (float)(how.lr / (1.0 - pow(how.beta1, (double)how.step)));
    float v_correction = (float)(1.0 / (1.0 - pow(how.beta2, (double)how.step)));
    float eps = (float)how.eps;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n_elems; i++) {
        float gi = g[i] * grad_scale;
        m[i] = beta1 * m[i] + rest1 * gi;
        v[i] = beta2 * v[i] + rest2 * gi * gi;
        w[i] = w[i] * keep - rate * m[i] / (sqrtf(v[i] * v_correction) + eps);
    }
    if (act_f32(compute) != w) memcpy(compute, w, (size_t)n_elems * sizeof *w);
}

void cpu_ema_update(const struct Backend *be, float *ema, const float *w, double decay,
                    int64_t n_elems) {
    (void)be;
    float keep = (float)decay, rest = (float)(1.0 - decay);
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n_elems; i++) ema[i] = keep * ema[i] + rest * w[i];
}

void cpu_scale_f32(const struct Backend *be, float *x, double factor, int64_t n_elems) {
    (void)be;
    float f = (float)factor;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n_elems; i++) x[i] *= f;
}

void cpu_weights_cast(const struct Backend *be, Act *compute, const float *w, int64_t n_elems) {
    (void)be;
    if (act_const_f32(compute) != w) memcpy(compute, w, (size_t)n_elems * sizeof *w);
}
