/* Times, modulation rows, and the fusion of the main feature with the inner latent. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_math.h"

void cpu_sinusoid(const struct Backend *be, float *out, const double *host_t, int64_t batch,
                  int64_t dim) {
    (void)be;
    int64_t half = dim / 2;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < half; i++) {
            double angle = 1000.0 * host_t[b] * pow(10000.0, -(double)i / (double)half);
            out[b * dim + i] = (float)cos(angle);
            out[b * dim + half + i] = (float)sin(angle);
        }
}

void cpu_silu_forward(const struct Backend *be, float *y, const float *x, int64_t n_elems) {
    (void)be;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n_elems; i++) y[i] = x[i] * fast_sigmoid(x[i]);
}

void cpu_silu_backward(const struct Backend *be, float *dx, const float *dy, const float *x,
                       int64_t n_elems, bool accumulate) {
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_elems; i++) {
        float s = fast_sigmoid(x[i]), d = dy[i] * (s + x[i] * s * (1.0f - s));
        dx[i] = accumulate ? dx[i] + d : d;
    }
}

void cpu_add_f32(const struct Backend *be, float *out, const float *a, const float *b,
                 int64_t n_elems) {
    (void)be;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n_elems; i++) out[i] = a[i] + b[i];
}

void cpu_rows_add(const struct Backend *be, float *out, const float *in, int64_t in_stride,
                  const float *row, int64_t batch, int64_t n_elems) {
    (void)be;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < n_elems; i++)
            out[b * n_elems + i] = in[b * in_stride + i] + row[i];
}

void cpu_rows_add_backward(const struct Backend *be, float *din, int64_t din_stride, float *drow,
                           const float *dout, int64_t batch, int64_t n_elems) {
    (void)be;
    for (int64_t b = 0; b < batch; b++) {
        const float *d = dout + b * n_elems;
        if (din)
            for (int64_t i = 0; i < n_elems; i++) din[b * din_stride + i] += d[i];
        if (drow)
            for (int64_t i = 0; i < n_elems; i++) drow[i] += d[i];
    }
}

void cpu_act_from_f32(const struct Backend *be, Act *y, const float *x, int64_t n_elems) {
    (void)be;
    memcpy(y, x, (size_t)n_elems * sizeof *x);
}

void cpu_act_to_f32(const struct Backend *be, float *y, const Act *x, int64_t n_elems) {
    (void)be;
    memcpy(y, x, (size_t)n_elems * sizeof *y);
}

void cpu_act_add(const struct Backend *be, Act *out, const Act *a, const Act *b, int64_t n_elems) {
    cpu_add_f32(be, act_f32(out), act_const_f32(a), act_const_f32(b), n_elems);
}

void cpu_mix_forward(const struct Backend *be, Act *out, const Act *m, const Act *h,
                     const float *logit, int64_t n_elems) {
    (void)be;
    const float *mf = act_const_f32(m), *hf = act_const_f32(h);
    float *o = act_f32(out), g = 1.0f / (1.0f + expf(-logit[0]));
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n_elems; i++) o[i] = (1.0f - g) * mf[i] + g * hf[i];
}

void cpu_mix_backward(const struct Backend *be, Act *dm, Act *dh, float *dlogit, const Act *dout,
                      const Act *m, const Act *h, const float *logit, int64_t n_elems) {
    (void)be;
    enum { RUN = 4096 };
    const float *mf = act_const_f32(m), *hf = act_const_f32(h), *d = act_const_f32(dout);
    float *dmf = act_f32(dm), *dhf = act_f32(dh), g = 1.0f / (1.0f + expf(-logit[0]));
    double total = 0.0;
    for (int64_t run = 0; run < n_elems; run += RUN) {
        int64_t end = n_elems - run < RUN ? n_elems : run + RUN;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t i = run; i < end; i++) {
            part += d[i] * (hf[i] - mf[i]);
            dmf[i] = (1.0f - g) * d[i];
            dhf[i] = g * d[i];
        }
        total += part;
    }
    if (dlogit) dlogit[0] += (float)(total * g * (1.0f - g));
}

void cpu_columns_join(const struct Backend *be, Act *out, const Act *a, const Act *b, int64_t rows,
                      int64_t dim) {
    (void)be;
    size_t n_bytes = (size_t)dim * sizeof(float);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        float *o = act_f32(out) + row * 2 * dim;
        memcpy(o, act_const_f32(a) + row * dim, n_bytes);
        memcpy(o + dim, act_const_f32(b) + row * dim, n_bytes);
    }
}

void cpu_columns_split(const struct Backend *be, Act *a, Act *b, const Act *in, int64_t rows,
                       int64_t dim) {
    (void)be;
    size_t n_bytes = (size_t)dim * sizeof(float);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *i = act_const_f32(in) + row * 2 * dim;
        memcpy(act_f32(a) + row * dim, i, n_bytes);
        memcpy(act_f32(b) + row * dim, i + dim, n_bytes);
    }
}
