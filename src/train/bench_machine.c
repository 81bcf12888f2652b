/* What the machine can do at most: multiply-adds, and copies of memory that no cache holds. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/bench.h"

/* The widest vector that the compiler was told of. */
typedef float Vector __attribute__((vector_size(__BIGGEST_ALIGNMENT__)));

enum {
    LANES = sizeof(Vector) / sizeof(float),
    CHAINS = 12, /* independent sums: enough to hide the latency of a multiply-add in two units */
    ROUNDS = 200000
};

/* 2 CHAINS LANES ROUNDS flops.  x -> x a + b with 0 < a < 1 stays finite; the sum is handed out so
 * that none of it can be left away. */
static float multiply_adds(float a_value, float b_value) {
    Vector chains[CHAINS], sum = {0};
    Vector a = sum + a_value, b = sum + b_value;
    for (int i = 0; i < CHAINS; i++) chains[i] = sum + (float)i;
    for (int round = 0; round < ROUNDS; round++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) chains[i] = chains[i] * a + b;
    for (int i = 0; i < CHAINS; i++) sum += chains[i];
    float total = 0.0f;
    for (int lane = 0; lane < LANES; lane++) total += sum[lane];
    return total;
}

struct MultiplyAdds {
    int n_threads;
    float consumed;
};

static void run_multiply_adds(const struct Backend *be, void *context) {
    struct MultiplyAdds *m = context;
    float consumed = 0.0f;
    (void)be;
#pragma omp parallel num_threads(m->n_threads) reduction(+ : consumed)
    consumed += multiply_adds(0.75f + m->consumed * 1e-30f, 0.5f);
    m->consumed = consumed;
}

static struct OpTally multiply_adds_tally(const struct BenchReport *report,
                                          const struct Backend *be, int n_threads) {
    struct MultiplyAdds m = {.n_threads = n_threads};
    struct OpTally tally = bench_measure_least(report, be, run_multiply_adds, &m);
    TMD_CHECK(m.consumed > 0.0f, "the sum of the multiply-adds is %g", (double)m.consumed);
    tally.flops = 2.0 * CHAINS * LANES * (double)ROUNDS * n_threads;
    return tally;
}

struct Copy {
    char *to, *from;
    size_t n_bytes;
};

static void run_host_copy(const struct Backend *be, void *context) {
    struct Copy *copy = context;
    (void)be;
#pragma omp parallel
    {
        size_t n = (size_t)omp_get_num_threads(), i = (size_t)omp_get_thread_num();
        size_t first = copy->n_bytes * i / n, end = copy->n_bytes * (i + 1) / n;
        memcpy(copy->to + first, copy->from + first, end - first);
    }
}

static void run_device_copy(const struct Backend *be, void *context) {
    struct Copy *copy = context;
    be->copy(be, copy->to, copy->from, (int64_t)copy->n_bytes);
}

static struct OpTally copy_tally(const struct BenchReport *report, const struct Backend *be,
                                 BenchRun run, size_t n_bytes) {
    struct Copy copy = {be->memory_alloc(be, (int64_t)n_bytes),
                        be->memory_alloc(be, (int64_t)n_bytes), n_bytes};
    struct OpTally tally = bench_measure(report, be, run, &copy);
    tally.bytes = 2.0 * (double)n_bytes;
    be->memory_free(be, copy.to);
    be->memory_free(be, copy.from);
    return tally;
}

static void bench_host(struct BenchReport *report, const struct Backend *be) {
    enum { COPY_BYTES = 256 << 20 };
    int n_threads = omp_get_max_threads();
    struct OpTally all = multiply_adds_tally(report, be, n_threads),
                   one = multiply_adds_tally(report, be, 1);
    struct OpTally copy = copy_tally(report, be, run_host_copy, COPY_BYTES);
    bench_report_set_peak(report, all.flops / all.seconds);
    bench_report_set_bandwidth(report, copy.bytes / copy.seconds);
    bench_section(report, "machine, %d thread%s", n_threads, n_threads > 1 ? "s" : "");
    bench_row(report, "multiply-adds, all threads", all);
    bench_row(report, "multiply-adds, one thread", one);
    bench_row(report, "copy, all threads", copy);
}

static void bench_device(struct BenchReport *report, const struct Backend *be, int64_t side) {
    struct OpTally product = bench_product(report, be, (struct LinearShape){side, side, side});
    /* as many bytes as the product's operand has in float32: 256 MiB at 8192 */
    struct OpTally copy =
        copy_tally(report, be, run_device_copy, (size_t)(side * side) * sizeof(float));
    bench_report_set_peak(report, product.flops / product.seconds);
    bench_report_set_bandwidth(report, copy.bytes / copy.seconds);
    bench_section(report, "device");
    char name[64];
    snprintf(name, sizeof name, "%lld cubed matrix product", (long long)side);
    bench_row(report, name, product);
    bench_row(report, "copy", copy);
}

void bench_machine(struct BenchReport *report, const struct Backend *be, int64_t side) {
    if (strcmp(be->name, "cpu") == 0)
        bench_host(report, be);
    else
        bench_device(report, be, side);
}
