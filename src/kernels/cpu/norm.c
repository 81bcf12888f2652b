/* Layer norm with modulation, gated residuals, and the norm and rotation of queries and keys.
 *
 * Each backward goes over its input twice: by rows for dx, and by blocks of columns for what is
 * summed over the tokens.  The second reading costs little, needs no scratch, and makes every sum
 * run in the same order for any number of threads.
 *
 * With xhat = (x - mean) rstd and g = dy (one + scale):
 *     dx = rstd (g - mean(g) - xhat mean(g xhat)),  dscale = sum dy xhat,  dshift = sum dy. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "minmax.h"

enum { COLUMNS = 128, RUN = 128 };

/* Sums over rows call their loop with COLUMNS as a constant where they can: the sums then stay in
 * registers. */
#define INLINED static inline __attribute__((always_inline))

INLINED void layer_norm_row(float *y, float *mean, float *rstd, const float *x, const float *scale,
                            const float *shift, struct NormShape s, int64_t row) {
    const float *xr = x + row * s.dim;
    const float *sc = scale + row / s.tokens * s.stride, *sh = shift + row / s.tokens * s.stride;
    float *yr = y + row * s.dim, sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < s.dim; j++) sum += xr[j];
    float mu = sum / (float)s.dim;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < s.dim; j++) squares += (xr[j] - mu) * (xr[j] - mu);
    float r = 1.0f / sqrtf(squares / (float)s.dim + s.eps);
#pragma omp simd
    for (int64_t j = 0; j < s.dim; j++) yr[j] = (xr[j] - mu) * r * (s.one + sc[j]) + sh[j];
    mean[row] = mu;
    rstd[row] = r;
}

void cpu_layer_norm_forward(const struct Backend *be, Act *y, float *mean, float *rstd,
                            const Act *x, const float *scale, const float *shift,
                            struct NormShape s) {
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.batch * s.tokens; row++)
        layer_norm_row(act_f32(y), mean, rstd, act_const_f32(x), scale, shift, s, row);
}

static void layer_norm_dx(float *dx, const float *dy, const float *x, const float *mean,
                          const float *rstd, const float *scale, struct NormShape s,
                          bool accumulate) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.batch * s.tokens; row++) {
        const float *xr = x + row * s.dim, *dyr = dy + row * s.dim;
        const float *sc = scale + row / s.tokens * s.stride;
        float *dxr = dx + row * s.dim, mu = mean[row], r = rstd[row], sum_g = 0.0f, sum_gx = 0.0f;
#pragma omp simd reduction(+ : sum_g, sum_gx)
        for (int64_t j = 0; j < s.dim; j++) {
            float g = dyr[j] * (s.one + sc[j]);
            sum_g += g;
            sum_gx += g * (xr[j] - mu) * r;
        }
        float mean_g = sum_g / (float)s.dim, mean_gx = sum_gx / (float)s.dim;
        float keep = accumulate ? 1.0f : 0.0f;
        if (!accumulate) /* what lies there may be NaN, and NaN * 0 is NaN */
            for (int64_t j = 0; j < s.dim; j++) dxr[j] = 0.0f;
#pragma omp simd
        for (int64_t j = 0; j < s.dim; j++) {
            float g = dyr[j] * (s.one + sc[j]), xhat = (xr[j] - mu) * r;
            dxr[j] = keep * dxr[j] + r * (g - mean_g - xhat * mean_gx);
        }
    }
}

/* Sums over rows [first_row, end_row) into n columns of one row of gradients. */
INLINED void layer_norm_dparams(float *dscale, float *dshift, const float *dy, const float *x,
                                const float *mean, const float *rstd, struct NormShape s,
                                int64_t first_row, int64_t end_row, int64_t column, int64_t n) {
    double total_scale[COLUMNS] = {0}, total_shift[COLUMNS] = {0};
    for (int64_t run = first_row; run < end_row; run += RUN) {
        float part_scale[COLUMNS] = {0}, part_shift[COLUMNS] = {0};
        int64_t end = smaller(run + RUN, end_row);
        for (int64_t row = run; row < end; row++) {
            const float *dyr = dy + row * s.dim + column, *xr = x + row * s.dim + column;
            float mu = mean[row], r = rstd[row];
#pragma omp simd
            for (int64_t j = 0; j < n; j++) {
                part_shift[j] += dyr[j];
                part_scale[j] += dyr[j] * (xr[j] - mu) * r;
            }
        }
        for (int64_t j = 0; j < n; j++) {
            total_scale[j] += part_scale[j];
            total_shift[j] += part_shift[j];
        }
    }
    for (int64_t j = 0; j < n; j++) {
        dscale[column + j] += (float)total_scale[j];
        dshift[column + j] += (float)total_shift[j];
    }
}

void cpu_layer_norm_backward(const struct Backend *be, Act *dx, float *dscale, float *dshift,
                             const Act *dy, const Act *x, const float *mean, const float *rstd,
                             const float *scale, struct NormShape s, bool accumulate) {
    (void)be;
    const float *dyf = act_const_f32(dy), *xf = act_const_f32(x);
    layer_norm_dx(act_f32(dx), dyf, xf, mean, rstd, scale, s, accumulate);
    if (!dscale) return;
    /* With stride 0 all samples share one row: then they are summed as one long sample. */
    int64_t groups = s.stride ? s.batch : 1, rows = s.stride ? s.tokens : s.batch * s.tokens;
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t g = 0; g < groups; g++)
        for (int64_t column = 0; column < s.dim; column += COLUMNS) {
            float *dsc = dscale + g * s.stride, *dsh = dshift + g * s.stride;
            if (s.dim - column >= COLUMNS)
                layer_norm_dparams(dsc, dsh, dyf, xf, mean, rstd, s, g * rows, (g + 1) * rows,
                                   column, COLUMNS);
            else
                layer_norm_dparams(dsc, dsh, dyf, xf, mean, rstd, s, g * rows, (g + 1) * rows,
                                   column, s.dim - column);
        }
}

INLINED void gate_row(float *out, const float *x, const float *h, const float *gate,
                      int64_t gate_stride, struct NormShape s, int64_t row) {
    const float *xr = x + row * s.dim, *hr = h + row * s.dim;
    float *o = out + row * s.dim;
    if (gate) {
        const float *gr = gate + row / s.tokens * gate_stride;
#pragma omp simd
        for (int64_t j = 0; j < s.dim; j++) o[j] = xr[j] + hr[j] * gr[j];
    } else {
#pragma omp simd
        for (int64_t j = 0; j < s.dim; j++) o[j] = xr[j] + hr[j];
    }
}

void cpu_gate_forward(const struct Backend *be, Act *out, const Act *x, const Act *h,
                      const float *gate, struct NormShape s) {
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.batch * s.tokens; row++)
        gate_row(act_f32(out), act_const_f32(x), act_const_f32(h), gate, s.stride, s, row);
}

void cpu_gate_norm_forward(const struct Backend *be, Act *out, Act *y, float *mean, float *rstd,
                           const Act *x, const Act *h, const float *gate, int64_t gate_stride,
                           const float *scale, const float *shift, struct NormShape s) {
    (void)be;
    float *o = act_f32(out);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.batch * s.tokens; row++) {
        gate_row(o, act_const_f32(x), act_const_f32(h), gate, gate_stride, s, row);
        layer_norm_row(act_f32(y), mean, rstd, o, scale, shift, s, row);
    }
}

INLINED void gate_backward_columns(float *dh, float *dgate, const float *dout, const float *h,
                                   const float *gate, struct NormShape s, int64_t sample,
                                   int64_t column, int64_t n) {
    double total[COLUMNS] = {0};
    const float *g = gate + sample * s.stride + column;
    int64_t first = sample * s.tokens, end = first + s.tokens;
    for (int64_t run = first; run < end; run += RUN) {
        float part[COLUMNS] = {0};
        int64_t run_end = smaller(run + RUN, end);
        for (int64_t row = run; row < run_end; row++) {
            int64_t at = row * s.dim + column;
#pragma omp simd
            for (int64_t j = 0; j < n; j++) {
                part[j] += dout[at + j] * h[at + j];
                dh[at + j] = dout[at + j] * g[j];
            }
        }
        for (int64_t j = 0; j < n; j++) total[j] += part[j];
    }
    if (!dgate) return;
    for (int64_t j = 0; j < n; j++) dgate[sample * s.stride + column + j] += (float)total[j];
}

void cpu_gate_backward(const struct Backend *be, Act *dh, float *dgate, const Act *dout,
                       const Act *h, const float *gate, struct NormShape s) {
    (void)be;
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t sample = 0; sample < s.batch; sample++)
        for (int64_t column = 0; column < s.dim; column += COLUMNS) {
            if (s.dim - column >= COLUMNS)
                gate_backward_columns(act_f32(dh), dgate, act_const_f32(dout), act_const_f32(h),
                                      gate, s, sample, column, COLUMNS);
            else
                gate_backward_columns(act_f32(dh), dgate, act_const_f32(dout), act_const_f32(h),
                                      gate, s, sample, column, s.dim - column);
        }
}
