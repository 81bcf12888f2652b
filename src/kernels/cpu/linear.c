/* Linear layers: oneDNN's matrix product, and one pass over the result for bias and GELU. */
#include <dnnl.h>

#include "error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_math.h"

void cpu_gemm(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
              int64_t ldc) {
    dnnl_status_t status =
        dnnl_sgemm(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    TMD_CHECK(status == dnnl_success,
              "dnnl_sgemm('%c', '%c', %lld, %lld, %lld) returned %d", transpose_a, transpose_b,
              (long long)m, (long long)n, (long long)k, (int)status);
}

static void matmul_forward(float *y, const float *x, const float *w, struct LinearShape s) {
    cpu_gemm('N', 'T', s.rows, s.n_out, s.n_in, 1.0f, x, s.n_in, w, s.n_in, 0.0f, y, s.n_out);
}

static void matmul_backward_input(float *dx, const float *dy, const float *w, struct LinearShape s,
                                  float beta) {
    cpu_gemm('N', 'N', s.rows, s.n_in, s.n_out, 1.0f, dy, s.n_out, w, s.n_in, beta, dx, s.n_in);
}

static void add_bias(float *y, const float *b, struct LinearShape s) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.rows; row++) {
        float *yr = y + row * s.n_out;
#pragma omp simd
        for (int64_t j = 0; j < s.n_out; j++) yr[j] += b[j];
    }
}

/* db[j] += sum over rows of dy[row, j]: float over short runs of rows, double over the runs. */
static void bias_gradient(float *db, const float *dy, struct LinearShape s) {
    enum { COLUMNS = 64, RUN = 128 };
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < s.n_out; first += COLUMNS) {
        int64_t n = s.n_out - first < COLUMNS ? s.n_out - first : COLUMNS;
        double total[COLUMNS] = {0};
        for (int64_t row = 0; row < s.rows; row += RUN) {
            int64_t end = s.rows - row < RUN ? s.rows : row + RUN;
            float partial[COLUMNS] = {0};
            for (int64_t r = row; r < end; r++) {
                const float *dyr = dy + r * s.n_out + first;
#pragma omp simd
                for (int64_t j = 0; j < n; j++) partial[j] += dyr[j];
            }
            for (int64_t j = 0; j < n; j++) total[j] += partial[j];
        }
        for (int64_t j = 0; j < n; j++) db[first + j] += (float)total[j];
    }
}

void cpu_linear_f32_forward(const struct Backend *be, float *y, const float *x, const float *w,
                            const float *b, struct LinearShape shape) {
    (void)be;
    matmul_forward(y, x, w, shape);
    add_bias(y, b, shape);
}

void cpu_linear_f32_backward_input(const struct Backend *be, float *dx, const float *dy,
                                   const float *w, struct LinearShape shape) {
    (void)be;
    matmul_backward_input(dx, dy, w, shape, 0.0f);
}

void cpu_linear_f32_backward_params(const struct Backend *be, float *dw, float *db, const float *x,
                                    const float *dy, struct LinearShape s) {
    (void)be;
    cpu_gemm('T', 'N', s.n_out, s.n_in, s.rows, 1.0f, dy, s.n_out, x, s.n_in, 1.0f, dw, s.n_in);
    if (db) bias_gradient(db, dy, s);
}

void cpu_linear_forward(const struct Backend *be, Act *y, const Act *x, const Act *w, const Act *b,
                        struct LinearShape shape) {
    cpu_linear_f32_forward(be, act_f32(y), act_const_f32(x), act_const_f32(w), act_const_f32(b),
                           shape);
}

void cpu_linear_gelu_forward(const struct Backend *be, Act *y, Act *pre, const Act *x, const Act *w,
                             const Act *b, struct LinearShape s) {
    (void)be;
    matmul_forward(act_f32(pre), act_const_f32(x), act_const_f32(w), s);
    const float *bias = act_const_f32(b);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.rows; row++) {
        float *z = act_f32(pre) + row * s.n_out, *out = act_f32(y) + row * s.n_out;
#pragma omp simd
        for (int64_t j = 0; j < s.n_out; j++) {
            z[j] += bias[j];
            out[j] = fast_gelu(z[j]);
        }
    }
}

void cpu_linear_backward_input(const struct Backend *be, Act *dx, const Act *dy, const Act *w,
                               struct LinearShape shape, bool accumulate) {
    (void)be;
    matmul_backward_input(act_f32(dx), act_const_f32(dy), act_const_f32(w), shape,
                          accumulate ? 1.0f : 0.0f);
}

void cpu_linear_gelu_backward_input(const struct Backend *be, Act *dpre, const Act *dy, const Act *w,
                                    const Act *pre, struct LinearShape s) {
    (void)be;
    matmul_backward_input(act_f32(dpre), act_const_f32(dy), act_const_f32(w), s, 0.0f);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.rows; row++) {
        float *d = act_f32(dpre) + row * s.n_in;
        const float *z = act_const_f32(pre) + row * s.n_in;
#pragma omp simd
        for (int64_t j = 0; j < s.n_in; j++) d[j] *= fast_gelu_grad(z[j]);
    }
}

void cpu_linear_backward_params(const struct Backend *be, float *dw, float *db, const Act *x,
                                const Act *dy, struct LinearShape shape) {
    cpu_linear_f32_backward_params(be, dw, db, act_const_f32(x), act_const_f32(dy), shape);
}
