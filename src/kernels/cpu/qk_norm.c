/* RMS norm of queries and keys over the whole width, then rotary embedding.
 *
 * Forward: z = x rstd w, and each pair (a, b) of a head becomes (a c - b s, a s + b c).
 * Backward: the rotation is undone by its transpose, dz = R^T dy; then
 *     dx = rstd (dz w - x rstd^2 mean(dz w x)),  dw = sum over rows of dz x rstd. */
#include <math.h>

#include "kernels/cpu/cpu.h"

/* Four pairs, at any address. */
typedef float Pairs __attribute__((vector_size(32), aligned(sizeof(float)), may_alias));
typedef int32_t PairLanes __attribute__((vector_size(32)));

/* n channels of one head (n even) rotated forward, sign = 1, or back, sign = -1, by the cosines and
 * sines cs [n / 2, 2].  In vectors of interleaved pairs:  (a, b) (c, c) + (b, a) (-s, s). */
static void rotate_stretch(float *out, const float *in, const float *cs, int64_t n, float sign) {
    enum { STEP = sizeof(Pairs) / sizeof(float) };
    const PairLanes first = {0, 0, 2, 2, 4, 4, 6, 6}, second = {1, 1, 3, 3, 5, 5, 7, 7};
    const PairLanes swapped = {1, 0, 3, 2, 5, 4, 7, 6};
    const Pairs signs = {-sign, sign, -sign, sign, -sign, sign, -sign, sign};
    int64_t i = 0;
    for (; i + STEP <= n; i += STEP) {
        Pairs x = *(const Pairs *)(in + i), c = *(const Pairs *)(cs + i);
        *(Pairs *)(out + i) =
            x * __builtin_shuffle(c, first) +
            __builtin_shuffle(x, swapped) * (__builtin_shuffle(c, second) * signs);
    }
    for (; i < n; i += 2) {
        float a = in[i], b = in[i + 1], cosine = cs[i], sine = sign * cs[i + 1];
        out[i] = a * cosine - b * sine;
        out[i + 1] = a * sine + b * cosine;
    }
}

/* The same for `n` channels from `first` on, both even, over heads; out may be in. */
static void rotate(float *out, const float *in, const float *cs, int64_t first, int64_t n,
                   int64_t head_dim, float sign) {
    for (int64_t j = 0; j < n;) {
        int64_t at = (first + j) % head_dim,
                stretch = head_dim - at < n - j ? head_dim - at : n - j;
        rotate_stretch(out + j, in + j, cs + at, stretch, sign);
        j += stretch;
    }
}

void cpu_qk_norm_forward(const struct Backend *be, Act *y, float *rstd, const Act *x,
                         const float *w, const float *cos_sin, struct QkNormShape s) {
    (void)be;
    int64_t head_dim = s.dim / s.heads;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.batch * s.tokens; row++) {
        const float *xr = act_const_f32(x) + row * s.x_stride;
        float *yr = act_f32(y) + row * s.dim, squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (int64_t j = 0; j < s.dim; j++) squares += xr[j] * xr[j];
        float r = 1.0f / sqrtf(squares / (float)s.dim + s.eps);
        rstd[row] = r;
#pragma omp simd
        for (int64_t j = 0; j < s.dim; j++) yr[j] = xr[j] * r * w[j];
        if (cos_sin) rotate(yr, yr, cos_sin + row % s.tokens * head_dim, 0, s.dim, head_dim, 1.0f);
    }
}

/* One row of dx; dz is formed in place of dx's own memory first. */
static void qk_norm_dx(float *dx, const float *dy, const float *x, float r, const float *w,
                       const float *cs, struct QkNormShape s) {
    if (cs) {
        rotate(dx, dy, cs, 0, s.dim, s.dim / s.heads, -1.0f);
    } else {
#pragma omp simd
        for (int64_t j = 0; j < s.dim; j++) dx[j] = dy[j];
    }
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < s.dim; j++) sum += dx[j] * w[j] * x[j];
    float along = sum / (float)s.dim * r * r;
#pragma omp simd
    for (int64_t j = 0; j < s.dim; j++) dx[j] = r * (dx[j] * w[j] - x[j] * along);
}

enum { COLUMNS = 128, RUN = 128 };

/* n <= COLUMNS columns of dw; a constant n keeps the sums in registers. */
static inline __attribute__((always_inline)) void
qk_norm_dw(float *dw, const float *dy, const float *x, const float *rstd, const float *cos_sin,
           struct QkNormShape s, int64_t column, int64_t n) {
    int64_t rows = s.batch * s.tokens, head_dim = s.dim / s.heads;
    double total[COLUMNS] = {0};
    for (int64_t run = 0; run < rows; run += RUN) {
        float part[COLUMNS] = {0}, rotated[COLUMNS];
        int64_t end = rows - run < RUN ? rows : run + RUN;
        for (int64_t row = run; row < end; row++) {
            const float *dz = dy + row * s.dim + column, *xr = x + row * s.x_stride + column;
            float r = rstd[row];
            if (cos_sin) {
                rotate(rotated, dz, cos_sin + row % s.tokens * head_dim, column, n, head_dim,
                       -1.0f);
                dz = rotated;
            }
#pragma omp simd
            for (int64_t j = 0; j < n; j++) part[j] += dz[j] * xr[j] * r;
        }
        for (int64_t j = 0; j < n; j++) total[j] += part[j];
    }
    for (int64_t j = 0; j < n; j++) dw[column + j] += (float)total[j];
}

void cpu_qk_norm_backward(const struct Backend *be, Act *dx, float *dw, const Act *dy, const Act *x,
                          const float *rstd, const float *w, const float *cos_sin,
                          struct QkNormShape s) {
    (void)be;
    int64_t head_dim = s.dim / s.heads;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.batch * s.tokens; row++)
        qk_norm_dx(act_f32(dx) + row * s.x_stride, act_const_f32(dy) + row * s.dim,
                   act_const_f32(x) + row * s.x_stride, rstd[row], w,
                   cos_sin ? cos_sin + row % s.tokens * head_dim : NULL, s);
    if (!dw) return;
#pragma omp parallel for schedule(static)
    for (int64_t column = 0; column < s.dim; column += COLUMNS) {
        if (s.dim - column >= COLUMNS)
            qk_norm_dw(dw, act_const_f32(dy), act_const_f32(x), rstd, cos_sin, s, column, COLUMNS);
        else
            qk_norm_dw(dw, act_const_f32(dy), act_const_f32(x), rstd, cos_sin, s, column,
                       s.dim - column);
    }
}
