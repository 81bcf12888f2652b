/* The CPU's own matrix product against sums in double: sizes around every boundary of its blocking,
 * all forms of operands and addends, the same bits for any number of threads; and its transposes.
 */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "error.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/transpose.h"
#include "philox.h"

/* Backends for 1, 2 and 3 threads. */
enum { N_TEAMS = 3 };
static struct Backend *backend_of(int n_threads) {
    omp_set_num_threads(n_threads);
    return backend_cpu_create();
}

enum Addend { ADD_NOTHING, ADD_ROW, ADD_C, N_ADDENDS };

struct Case {
    int64_t m, n, k, gap; /* gap: how much longer rows are than what is in them */
    bool a_transposed, b_transposed;
    enum Addend addend;
};

/* Exactly as long as the product may read, and in (-1, 1); NaN between the rows. */
static float *operand(uint64_t seed, int64_t rows, int64_t columns, int64_t ld) {
    int64_t n_elems = rows ? (rows - 1) * ld + columns : 0;
    float *x = xmalloc((size_t)n_elems * sizeof *x);
    for (int64_t i = 0; i < n_elems; i++) {
        double u = philox_uniform(philox(seed, (uint32_t)i, 0, 0, 0).word[0]);
        x[i] = i % ld < columns ? (float)(2.0 * u - 1.0) : NAN;
    }
    return x;
}

static double element(struct GemmOperand x, int64_t row, int64_t column) {
    return (double)(x.transposed ? x.at[column * x.ld + row] : x.at[row * x.ld + column]);
}

/* Rows so spread that a whole case takes milliseconds; always the first and the last. */
static int64_t row_step(const struct Case *c) {
    int64_t wanted = 4000000 / (c->n * c->k) + 1;
    return c->m > wanted ? (c->m - 1) / wanted + 1 : 1;
}

static void check_row(const struct Case *c, const struct Gemm *g, const float *before, int64_t i) {
    double error = 0.0, norm = 0.0;
    for (int64_t j = 0; j < c->n; j++) {
        double sum = g->addend.at ? (double)before[(c->addend == ADD_C ? i * g->ldc : 0) + j] : 0.0;
        for (int64_t k = 0; k < c->k; k++) sum += element(g->a, i, k) * element(g->b, k, j);
        double difference = (double)g->c[i * g->ldc + j] - sum;
        error += difference * difference;
        norm += sum * sum;
    }
    if (!(sqrt(error) <= 1e-6 * sqrt((double)c->k) * sqrt(norm) + 1e-6))
        fail_msg("%lld x %lld x %lld, row %lld: off by %g of %g", (long long)c->m, (long long)c->n,
                 (long long)c->k, (long long)i, sqrt(error), sqrt(norm));
}

static void check_case(struct Backend *const backends[N_TEAMS], struct Case c) {
    int64_t a_rows = c.a_transposed ? c.k : c.m, a_columns = c.a_transposed ? c.m : c.k;
    int64_t b_rows = c.b_transposed ? c.n : c.k, b_columns = c.b_transposed ? c.k : c.n;
    int64_t ldc = c.n + c.gap, n_bytes = ((c.m - 1) * ldc + c.n) * (int64_t)sizeof(float);
    float *a = operand(1, a_rows, a_columns, a_columns + c.gap);
    float *b = operand(2, b_rows, b_columns, b_columns + c.gap);
    float *row = operand(3, 1, c.n, c.n), *before = operand(4, c.m, c.n, ldc);
    float *first = xmalloc((size_t)n_bytes), *again = xmalloc((size_t)n_bytes);
    struct Gemm g = {.m = c.m,
                     .n = c.n,
                     .k = c.k,
                     .ldc = ldc,
                     .c = first,
                     .a = {a, a_columns + c.gap, c.a_transposed},
                     .b = {b, b_columns + c.gap, c.b_transposed}};
    for (int team = 0; team < N_TEAMS; team++) {
        g.c = team ? again : first;
        if (c.addend == ADD_C) g.addend = (struct TileAddend){g.c, ldc};
        if (c.addend == ADD_ROW) g.addend = (struct TileAddend){row, 0};
        memcpy(g.c, before, (size_t)n_bytes); /* what lies between the rows must stay */
        omp_set_num_threads(team + 1);
        cpu_gemm(backends[team], &g);
        if (team) assert_memory_equal(first, again, n_bytes);
    }
    g.c = first;
    for (int64_t i = 0; i < c.m; i += row_step(&c))
        check_row(&c, &g, c.addend == ADD_ROW ? row : before, i);
    check_row(&c, &g, c.addend == ADD_ROW ? row : before, c.m - 1);
    for (int64_t i = 0; i + 1 < c.m; i++)
        for (int64_t j = c.n; j < ldc; j++) assert_true(isnan(first[i * ldc + j]));
    float *memory[] = {a, b, row, before, first, again};
    for (int i = 0; i < 6; i++) free(memory[i]);
}

static void test_products(void **state) {
    struct Backend *const *backends = *state;
    static const int64_t sizes[][3] = {{1, 1, 1},       {5, 17, 3},       {6, 64, 24},
                                       {7, 65, 25},     {97, 33, 129},    {192, 160, 513},
                                       {13, 2049, 7},   {100, 130, 1030}, {600, 48, 96},
                                       {600, 1100, 40}, {3, 96, 1600},
                                       {98, 512, 530},  {14, 2600, 520}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int form = 0; form < 4; form++)
            for (int addend = 0; addend < N_ADDENDS; addend++)
                check_case(backends, (struct Case){.m = sizes[i][0],
                                                   .n = sizes[i][1],
                                                   .k = sizes[i][2],
                                                   .gap = form == 1 ? 5 : 0,
                                                   .a_transposed = form & 1,
                                                   .b_transposed = form >> 1,
                                                   .addend = (enum Addend)addend});
}

struct Covered {
    int64_t n;
    int *times; /* [m, n] */
};

static void count_parts(const void *context, int64_t row, int64_t n_rows, int64_t column,
                        int64_t n_columns) {
    const struct Covered *covered = context;
    for (int64_t i = row; i < row + n_rows; i++)
        for (int64_t j = column; j < column + n_columns; j++) covered->times[i * covered->n + j]++;
}

/* Every element is finished once, whatever the number of stretches of k and n. */
static void test_finish(void **state) {
    enum { M = 131, N = 2100, K = 1100 };
    struct Backend *const *backends = *state;
    float *a = operand(1, M, K, K), *b = operand(2, K, N, N), *c = xcalloc(M * N * sizeof *c);
    for (int team = 0; team < N_TEAMS; team++) {
        struct Covered covered = {N, xcalloc(M * N * sizeof(int))};
        struct Gemm g = {.m = M,
                         .n = N,
                         .k = K,
                         .a = {a, K, false},
                         .b = {b, N, false},
                         .c = c,
                         .ldc = N,
                         .finish = {count_parts, &covered}};
        omp_set_num_threads(team + 1);
        cpu_gemm(backends[team], &g);
        for (int64_t i = 0; i < M * N; i++) assert_int_equal(covered.times[i], 1);
        free(covered.times);
    }
    free(a);
    free(b);
    free(c);
}

/* Lets whoever is at the first part fall behind. */
static void dawdle(const void *context, int64_t row, int64_t n_rows, int64_t column,
                   int64_t n_columns) {
    (void)context, (void)n_rows, (void)n_columns;
    if (row == 0 && column == 0) usleep(20000);
}

/* A thread that is done with its columns must not overwrite what a slower one still reads. */
static void test_slow_thread(void **state) {
    enum { N = 2600 };
    struct Backend *const *backends = *state;
    int64_t m = 200, k = 8, n_bytes = m * N * (int64_t)sizeof(float);
    float *a = operand(1, m, k, k), *b = operand(2, k, N, N);
    float *alone = xmalloc((size_t)n_bytes), *together = xmalloc((size_t)n_bytes);
    struct Gemm g = {.m = m,
                     .n = N,
                     .k = k,
                     .a = {a, k, false},
                     .b = {b, N, false},
                     .c = alone,
                     .ldc = N,
                     .finish = {dawdle, NULL}};
    omp_set_num_threads(1);
    cpu_gemm(backends[0], &g);
    g.c = together;
    omp_set_num_threads(2);
    cpu_gemm(backends[1], &g);
    assert_memory_equal(alone, together, n_bytes);
    float *memory[] = {a, b, alone, together};
    for (int i = 0; i < 4; i++) free(memory[i]);
}

static void test_transpose(void **state) {
    (void)state;
    for (int64_t rows = 1; rows < 40; rows += 6)
        for (int64_t columns = 1; columns < 40; columns += 5) {
            float *from = operand(1, rows, columns, columns + 3), to[40 * 41];
            for (int i = 0; i < 40 * 41; i++) to[i] = -7.0f;
            transpose(to, 41, from, columns + 3, rows, columns);
            for (int64_t j = 0; j < 40; j++)
                for (int64_t i = 0; i < 41; i++) {
                    bool inside = j < columns && i < rows;
                    assert_true(to[j * 41 + i] == (inside ? from[i * (columns + 3) + j] : -7.0f));
                }
            free(from);
        }
}

int main(void) {
    struct Backend *backends[N_TEAMS];
    for (int team = 0; team < N_TEAMS; team++) backends[team] = backend_of(team + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_products, backends),
        cmocka_unit_test_prestate(test_finish, backends),
        cmocka_unit_test_prestate(test_slow_thread, backends),
        cmocka_unit_test(test_transpose),
    };
    int failed = cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
    for (int team = 0; team < N_TEAMS; team++) backends[team]->destroy(backends[team]);
    return failed;
}
