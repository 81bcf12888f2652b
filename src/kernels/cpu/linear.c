/* Linear layers: one matrix product each, which starts from the bias and applies GELU to parts of
 * its result while they are in a cache. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/gemm.h"

/* y = x W^T + b. */
static struct Gemm forward_product(float *y, const float *x, const float *w, const float *b,
                                   struct LinearShape s) {
    return (struct Gemm){.m = s.rows,
                         .n = s.n_out,
                         .k = s.n_in,
                         .a = {x, s.n_in, false},
                         .b = {w, s.n_in, true},
                         .addend = {b, 0},
                         .c = y,
                         .ldc = s.n_out};
}

/* dx = dy W. */
static struct Gemm input_product(float *dx, const float *dy, const float *w, struct LinearShape s,
                                 bool accumulate) {
    return (struct Gemm){.m = s.rows,
                         .n = s.n_in,
                         .k = s.n_out,
                         .a = {dy, s.n_out, false},
                         .b = {w, s.n_in, false},
                         .addend = {accumulate ? dx : NULL, s.n_in},
                         .c = dx,
                         .ldc = s.n_in};
}

enum { COLUMNS = 128, RUN = 128 };

/* db[j] += sum over rows of dy[row, j] for n <= COLUMNS columns: float over short runs of rows,
 * double over the runs.  With a constant n the sums stay in registers. */
static inline __attribute__((always_inline)) void columns_sum(float *db, const float *dy, int64_t n,
                                                              struct LinearShape s) {
    double total[COLUMNS] = {0};
    for (int64_t run = 0; run < s.rows; run += RUN) {
        int64_t end = s.rows - run < RUN ? s.rows : run + RUN;
        float part[COLUMNS] = {0};
        for (int64_t row = run; row < end; row++)
#pragma omp simd
            for (int64_t j = 0; j < n; j++) part[j] += dy[row * s.n_out + j];
        for (int64_t j = 0; j < n; j++) total[j] += part[j];
    }
    for (int64_t j = 0; j < n; j++) db[j] += (float)total[j];
}

static void bias_gradient(float *db, const float *dy, struct LinearShape s) {
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < s.n_out; first += COLUMNS) {
        if (s.n_out - first >= COLUMNS)
            columns_sum(db + first, dy + first, COLUMNS, s);
        else
            columns_sum(db + first, dy + first, s.n_out - first, s);
    }
}

void cpu_linear_f32_forward(const struct Backend *be, float *y, const float *x, const float *w,
                            const float *b, struct LinearShape shape) {
    struct Gemm g = forward_product(y, x, w, b, shape);
    cpu_gemm(be, &g);
}

void cpu_linear_f32_backward_input(const struct Backend *be, float *dx, const float *dy,
                                   const float *w, struct LinearShape shape) {
    struct Gemm g = input_product(dx, dy, w, shape, false);
    cpu_gemm(be, &g);
}

void cpu_linear_f32_backward_params(const struct Backend *be, float *dw, float *db, const float *x,
                                    const float *dy, struct LinearShape s) {
    struct Gemm g = {.m = s.n_out,
                     .n = s.n_in,
                     .k = s.rows,
                     .a = {dy, s.n_out, true},
                     .b = {x, s.n_in, false},
                     .addend = {dw, s.n_in},
                     .c = dw,
                     .ldc = s.n_in};
    cpu_gemm(be, &g);
    if (db) bias_gradient(db, dy, s);
}

void cpu_linear_forward(const struct Backend *be, Act *y, const Act *x, const Act *w, const Act *b,
                        struct LinearShape shape) {
    cpu_linear_f32_forward(be, act_f32(y), act_const_f32(x), act_const_f32(w), act_const_f32(b),
                           shape);
}

/* Two matrices of the result's shape. */
struct GeluRows {
    float *out;
    const float *pre;
    int64_t stride;
};

static void gelu_finish(const void *context, int64_t row, int64_t n_rows, int64_t column,
                        int64_t n_columns) {
    const struct GeluRows *g = context;
    for (int64_t i = row; i < row + n_rows; i++) {
        const float *z = g->pre + i * g->stride + column;
        float *y = g->out + i * g->stride + column;
#pragma omp simd
        for (int64_t j = 0; j < n_columns; j++) y[j] = fast_gelu(z[j]);
    }
}

void cpu_linear_gelu_forward(const struct Backend *be, Act *y, Act *pre, const Act *x, const Act *w,
                             const Act *b, struct LinearShape s) {
    struct GeluRows rows = {act_f32(y), act_f32(pre), s.n_out};
    struct Gemm g =
        forward_product(act_f32(pre), act_const_f32(x), act_const_f32(w), act_const_f32(b), s);
    g.finish = (struct GemmFinish){gelu_finish, &rows};
    cpu_gemm(be, &g);
}

void cpu_linear_backward_input(const struct Backend *be, Act *dx, const Act *dy, const Act *w,
                               struct LinearShape shape, bool accumulate) {
    struct Gemm g =
        input_product(act_f32(dx), act_const_f32(dy), act_const_f32(w), shape, accumulate);
    cpu_gemm(be, &g);
}

static void gelu_gradient_finish(const void *context, int64_t row, int64_t n_rows, int64_t column,
                                 int64_t n_columns) {
    const struct GeluRows *g = context;
    for (int64_t i = row; i < row + n_rows; i++) {
        const float *z = g->pre + i * g->stride + column;
        float *d = g->out + i * g->stride + column;
#pragma omp simd
        for (int64_t j = 0; j < n_columns; j++) d[j] *= fast_gelu_grad(z[j]);
    }
}

void cpu_linear_gelu_backward_input(const struct Backend *be, Act *dpre, const Act *dy,
                                    const Act *w, const Act *pre, struct LinearShape s) {
    struct GeluRows rows = {act_f32(dpre), act_const_f32(pre), s.n_in};
    struct Gemm g = input_product(act_f32(dpre), act_const_f32(dy), act_const_f32(w), s, false);
    g.finish = (struct GemmFinish){gelu_gradient_finish, &rows};
    cpu_gemm(be, &g);
}

void cpu_linear_backward_params(const struct Backend *be, float *dw, float *db, const Act *x,
                                const Act *dy, struct LinearShape shape) {
    cpu_linear_f32_backward_params(be, dw, db, act_const_f32(x), act_const_f32(dy), shape);
}
