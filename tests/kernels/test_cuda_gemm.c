/* The CUDA backend's matrix products: every epilogue both as the library does it and in passes of
 * ours, and the choice between them by measuring.  TMD_TEST_ACT as in op_backend_cuda.c. */
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/backend_cuda.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_plan.h"
#include "op_check.h"
#include "scratch.h"

/* The products of linear.c. */
static const struct Kind {
    const char *name;
    enum GemmEpilogue epilogue;
    bool a_transposed, b_transposed, accumulate;
    enum OpKind out;
} kinds[] = {
    {"bias", GEMM_BIAS, false, true, false, OP_ACT},
    {"bias_gelu", GEMM_BIAS_GELU, false, true, false, OP_ACT},
    {"plain", GEMM_PLAIN, false, false, false, OP_ACT},
    {"plain accumulating", GEMM_PLAIN, false, false, true, OP_ACT},
    {"gelu_grad", GEMM_GELU_GRAD, false, false, false, OP_ACT},
    {"plain of A^T", GEMM_PLAIN, true, false, true, OP_F32},
    {"row_sums", GEMM_ROW_SUMS, true, false, true, OP_F32},
};
static const struct {
    int64_t m, n, k;
} shapes[] = {{5, 7, 6}, {64, 72, 40}, {1, 3, 129}, {40, 8, 600}, {130, 1, 1}, {1032, 24, 16}};
enum { N_KINDS = sizeof kinds / sizeof *kinds, N_SHAPES = sizeof shapes / sizeof *shapes };

enum Way { AS_CHOSEN, SEPARATE };

/* One product of each kind and shape; the same numbers for every backend. */
struct ProductCase {
    struct OpCase c;
    struct GemmProduct p;
    struct OpTensor *a, *b, *out, *bias, *aux, *sums;
    int64_t shift; /* see operand() */
};

static double gelu(double z) {
    return 0.5 * z * (1.0 + tanh(sqrt(2.0 / M_PI) * (z + 0.044715 * z * z * z)));
}

static double gelu_slope(double z) {
    const double step = 1e-5;
    return (gelu(z + step) - gelu(z - step)) / (2.0 * step);
}

/* A single row may begin anywhere in memory, and begins `shift` elements late. */
static struct OpTensor *operand(struct ProductCase *q, enum OpRole role, const char *name,
                                enum OpKind kind, int64_t rows, int64_t cols) {
    int64_t late = rows == 1 ? q->shift : 0;
    return op_strided(&q->c, role, name, kind, rows, cols, cols + late, late);
}

static struct GemmMatrix matrix(struct OpTensor *t, bool transposed) {
    return (struct GemmMatrix){op_act(t), transposed};
}

static void product_begin(struct ProductCase *q, struct OpSuite *suite, const struct Kind *kind,
                          int shape, int64_t shift) {
    int64_t m = shapes[shape].m, n = shapes[shape].n, k = shapes[shape].k;
    memset(q, 0, sizeof *q);
    q->shift = shift;
    op_case_begin(&q->c, suite, "%s m=%d n=%d k=%d", kind->name, (int)m, (int)n, (int)k);
    bool forward = kind->epilogue == GEMM_BIAS || kind->epilogue == GEMM_BIAS_GELU;
    enum OpRole out_role = kind->accumulate ? OP_UPDATED : OP_OVERWRITTEN;
    int64_t a_rows = kind->a_transposed ? k : m, b_rows = kind->b_transposed ? n : k;
    q->a = operand(q, OP_INPUT, "A", OP_ACT, a_rows, m + k - a_rows);
    q->b = operand(q, OP_INPUT, "B", OP_ACT, b_rows, n + k - b_rows);
    q->out = operand(q, out_role, "C", kind->out, m, n);
    if (forward) q->bias = operand(q, OP_INPUT, "bias", OP_ACT, 1, n);
    if (kind->epilogue == GEMM_BIAS_GELU) q->aux = operand(q, OP_OVERWRITTEN, "aux", OP_ACT, m, n);
    if (kind->epilogue == GEMM_GELU_GRAD) q->aux = operand(q, OP_INPUT, "aux", OP_ACT, m, n);
    if (kind->epilogue == GEMM_ROW_SUMS) q->sums = operand(q, OP_UPDATED, "sums", OP_F32, 1, m);
    op_rescale(&q->c, q->b, 1.0 / sqrt((double)k), 0.0); /* both branches of the GELU matter */
    q->p = (struct GemmProduct){.m = m,
                                .n = n,
                                .k = k,
                                .a = matrix(q->a, kind->a_transposed),
                                .b = matrix(q->b, kind->b_transposed),
                                .c = kind->out == OP_ACT ? (void *)op_act(q->out) : op_f32(q->out),
                                .in = q->c.be->act_dtype,
                                .out = q->out->dtype,
                                .accumulate = kind->accumulate,
                                .epilogue = kind->epilogue,
                                .bias = op_act(q->bias),
                                .aux = op_act(q->aux),
                                .sums = op_f32(q->sums)};
}

static double element(const struct OpTensor *t, bool transposed, int64_t row, int64_t col) {
    return t->values[transposed ? col * t->cols + row : row * t->cols + col];
}

/* The product, with the bias but without GELU. */
static double naive_element(const struct ProductCase *q, int64_t row, int64_t col) {
    double sum = q->bias ? q->bias->values[col] : 0.0;
    for (int64_t i = 0; i < q->p.k; i++)
        sum += element(q->a, q->p.a.transposed, row, i) * element(q->b, q->p.b.transposed, i, col);
    return sum;
}

static void check_product(struct ProductCase *q) {
    const struct GemmProduct *p = &q->p;
    double *out = op_array(&q->c, p->m * p->n), *aux = op_array(&q->c, p->m * p->n);
    double *sums = op_array(&q->c, p->m);
    for (int64_t i = 0; i < p->m * p->n; i++) {
        double value = naive_element(q, i / p->n, i % p->n);
        aux[i] = value;
        if (p->epilogue == GEMM_BIAS_GELU) value = gelu(value);
        if (p->epilogue == GEMM_GELU_GRAD) value *= gelu_slope(q->aux->values[i]);
        out[i] = value + (p->accumulate ? q->out->values[i] : 0.0);
    }
    op_check_values(&q->c, q->out, out, 2.0 * op_tolerance(q->out, p->k));
    if (p->epilogue == GEMM_BIAS_GELU)
        op_check_values(&q->c, q->aux, aux, op_tolerance(q->aux, p->k));
    if (!q->sums) return;
    for (int64_t row = 0; row < p->m; row++) {
        sums[row] = q->sums->values[row];
        for (int64_t i = 0; i < p->k; i++) sums[row] += element(q->a, true, row, i);
    }
    op_check_values(&q->c, q->sums, sums, op_tolerance(q->sums, p->k));
}

/* All that the products of one backend wrote, to the bit. */
struct Record {
    double *values;
    int64_t n_elems;
};

static void record(struct Record *all, struct ProductCase *q, const struct OpTensor *t) {
    if (!t) return;
    double *now = op_download(&q->c, t);
    all->values = xrealloc(all->values, (size_t)(all->n_elems + t->n_elems) * sizeof *now);
    memcpy(all->values + all->n_elems, now, (size_t)t->n_elems * sizeof *now);
    all->n_elems += t->n_elems;
}

/* Runs and checks all products, each of them with operands in three places: as they are allocated,
 * elsewhere but aligned as well as matters, so that the first choice stands, and at odd elements.
 */
static struct Record run_products(struct OpSuite *suite, enum Way way) {
    struct Record all = {0};
    static const int64_t shifts[] = {0, 8, 1};
    for (int i = 0; i < N_KINDS * N_SHAPES * 3; i++) {
        const struct Kind *kind = &kinds[i / 3 / N_SHAPES];
        struct ProductCase q;
        product_begin(&q, suite, kind, i / 3 % N_SHAPES, shifts[i % 3]);
        if (way == SEPARATE && kind->epilogue != GEMM_PLAIN)
            gemm_run_separate(suite->be, &q.p);
        else
            cuda_gemm(suite->be, &q.p);
        check_product(&q);
        record(&all, &q, q.out);
        record(&all, &q, kind->epilogue == GEMM_BIAS_GELU ? q.aux : NULL);
        record(&all, &q, q.sums);
        op_case_end(&q.c);
    }
    return all;
}

/* The same on a backend of its own that measures. */
static struct Record run_tuned(struct OpSuite *suite, enum Way way) {
    struct BackendCuda options = {.act_dtype = suite->be->act_dtype, .tune_gemm = true};
    struct OpSuite tuned = *suite;
    struct Error err;
    TMD_CHECK(backend_cuda_create(options, &tuned.be, &err), "%s", err.text);
    struct Record all = run_products(&tuned, way);
    suite->n_comparisons = tuned.n_comparisons;
    tuned.be->destroy(tuned.be);
    return all;
}

static void assert_same_bits(struct Record a, struct Record b) {
    assert_int_equal(a.n_elems, b.n_elems);
    assert_memory_equal(a.values, b.values, (size_t)a.n_elems * sizeof *a.values);
}

static void test_first_suggestion(void **state) {
    free(run_products(*state, AS_CHOSEN).values);
}

static void test_separate(void **state) {
    free(run_products(*state, SEPARATE).values);
}

static struct GemmCache *open_cache(void) {
    struct cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    return gemm_cache_open(properties.name, cublasLtGetVersion());
}

/* The one cache file of the folder, as a string. */
static char *cache_text(const char *folder) {
    char *pattern = scratch_path(folder, "gemm-*.txt");
    glob_t found;
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    size_t n_bytes;
    unsigned char *bytes = scratch_read(found.gl_pathv[0], &n_bytes);
    char *text = xprintf("%.*s", (int)n_bytes, (char *)bytes);
    free(bytes);
    globfree(&found);
    free(pattern);
    return text;
}

/* Stores `choice` for every key in the cache whose product has an epilogue; how many there are. */
static int store_for_all(const char *text, struct GemmChoice choice) {
    struct GemmCache *cache = open_cache();
    int n_stored = 0;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        if (*line == '#' || strncmp(line, "plain", 5) == 0) continue;
        char *key = xprintf("%.*s", (int)(strstr(line, " | ") - line), line);
        gemm_cache_lock(cache);
        gemm_cache_store(cache, key, &choice);
        gemm_cache_unlock(cache);
        free(key);
        n_stored++;
    }
    gemm_cache_close(cache);
    return n_stored;
}

static void with_scratch_cache(struct OpSuite *suite, void (*test)(struct OpSuite *, char *)) {
    char *folder = scratch_make();
    assert_int_equal(setenv("TMD_CACHE_DIR", folder, 1), 0);
    test(suite, folder);
    assert_int_equal(unsetenv("TMD_CACHE_DIR"), 0);
    scratch_remove(folder);
}

/* Trials leave no trace in what products accumulate into, and the next run takes what they found.
 */
static void tuned(struct OpSuite *suite, char *folder) {
    struct Record first = run_tuned(suite, AS_CHOSEN);
    char *text = cache_text(folder);
    struct Record second = run_tuned(suite, AS_CHOSEN);
    char *text_after = cache_text(folder);
    assert_string_equal(text, text_after);
    assert_same_bits(first, second);
    free(text_after);
    free(text);
    free(second.values);
    free(first.values);
}

/* Where the cache says that passes of ours are faster, they are taken. */
static void separate_in_cache(struct OpSuite *suite, char *folder) {
    free(run_tuned(suite, AS_CHOSEN).values);
    char *text = cache_text(folder);
    assert_true(store_for_all(text, (struct GemmChoice){.fused = false, .microseconds = 1.0f}) > 0);
    free(text);
    struct Record chosen = run_tuned(suite, AS_CHOSEN), separate = run_tuned(suite, SEPARATE);
    assert_same_bits(chosen, separate);
    free(separate.values);
    free(chosen.values);
}

/* An algorithm that the library does not know is not run but replaced. */
static void misfit_in_cache(struct OpSuite *suite, char *folder) {
    free(run_tuned(suite, AS_CHOSEN).values);
    char *text = cache_text(folder);
    struct GemmChoice misfit = {.fused = true, .microseconds = 1.0f};
    memset(&misfit.algo, 0xff, sizeof misfit.algo);
    assert_true(store_for_all(text, misfit) > 0);
    free(text);
    free(run_tuned(suite, AS_CHOSEN).values);
    text = cache_text(folder);
    assert_null(strstr(text, "ffffffffffffffffffffffffffffffff"));
    free(text);
}

static void test_tuned(void **state) {
    with_scratch_cache(*state, tuned);
}

static void test_separate_in_cache(void **state) {
    with_scratch_cache(*state, separate_in_cache);
}

static void test_misfit_in_cache(void **state) {
    with_scratch_cache(*state, misfit_in_cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_suggestion),
        cmocka_unit_test(test_separate),
        cmocka_unit_test(test_tuned),
        cmocka_unit_test(test_separate_in_cache),
        cmocka_unit_test(test_misfit_in_cache),
    };
    return op_run_tests("cuda_gemm", tests, sizeof tests / sizeof *tests);
}
