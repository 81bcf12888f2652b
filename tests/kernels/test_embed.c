/* Times, SiLU, modulation rows, fusion and conversions against naive versions in double; gradients
 * against finite differences of those. */
#include <math.h>

#include "op_check.h"

enum { N_LENGTHS = 5 };
static const int64_t lengths[N_LENGTHS] = {1, 5, 77, 129, 1031};

/* More times than a device takes as arguments of one launch. */
static void test_sinusoid(void **state) {
    enum { N_TIMES = 300 };
    double times[N_TIMES] = {0.0, 1.0, 0.001, 0.73191234567, 0.999};
    const int64_t dims[] = {2, 36, 256};
    for (int i = 5; i < N_TIMES; i++) times[i] = i / (N_TIMES + 0.1);
    for (int i = 0; i < 3; i++) {
        int64_t dim = dims[i], half = dim / 2;
        struct OpCase c;
        op_case_begin(&c, *state, "sinusoid dim %d", (int)dim);
        struct OpTensor *out = op_output(&c, "out", OP_F32, N_TIMES, dim);
        c.be->sinusoid(c.be, op_f32(out), times, N_TIMES, dim);
        double *expected = op_array(&c, out->n_elems);
        for (int64_t k = 0; k < N_TIMES * half; k++) {
            int64_t b = k / half, j = k % half;
            double angle = 1000.0 * times[b] * pow(10000.0, -(double)j / (double)half);
            expected[b * dim + j] = cos(angle);
            expected[b * dim + half + j] = sin(angle);
        }
        /* Tight: an angle near 1000 in float32 would be off by 3e-5. */
        op_check_values(&c, out, expected, 2.0 * op_roundoff(DTYPE_F32));
        op_case_end(&c);
    }
}

struct Silu {
    int64_t n_elems;
    double *x, *dy;
};

static double silu(double x) {
    return x / (1.0 + exp(-x));
}

static double silu_loss(const void *problem) {
    const struct Silu *p = problem;
    double sum = 0.0;
    for (int64_t i = 0; i < p->n_elems; i++) sum += p->dy[i] * silu(p->x[i]);
    return sum;
}

/* Runs silu forward and backward on x, where `values` are given on those. */
static void check_silu(void *suite, const char *what, int64_t n, const double *values,
                       bool accumulate) {
    struct OpCase c;
    op_case_begin(&c, suite, "silu %s n %d%s", what, (int)n, accumulate ? " accumulating" : "");
    struct OpTensor *x = op_input(&c, "x", OP_F32, 1, n), *dy = op_input(&c, "dy", OP_F32, 1, n);
    struct OpTensor *y = op_output(&c, "y", OP_F32, 1, n);
    struct OpTensor *dx =
        op_strided(&c, accumulate ? OP_UPDATED : OP_OVERWRITTEN, "dx", OP_F32, 1, n, n, 0);
    if (values) op_put(&c, x, values);
    c.be->silu_forward(c.be, op_f32(y), op_f32(x), n);
    c.be->silu_backward(c.be, op_f32(dx), op_f32(dy), op_f32(x), n, accumulate);
    double *expected = op_array(&c, n);
    for (int64_t k = 0; k < n; k++) expected[k] = silu(x->values[k]);
    op_check_values(&c, y, expected, op_tolerance(y, 1));
    struct Silu p = {n, x->values, dy->values};
    expected = op_finite_differences(&c, p.x, n, silu_loss, &p);
    op_check_gradient(&c, dx, expected, op_tolerance(dx, 1));
    op_case_end(&c);
}

static void test_silu(void **state) {
    for (int i = 0; i < N_LENGTHS; i++) {
        check_silu(*state, "random", lengths[i], NULL, false);
        check_silu(*state, "random", lengths[i], NULL, true);
    }
    double sweep[1001]; /* exp must not overflow, wrap round, or end too early */
    for (int i = 0; i < 1001; i++) sweep[i] = 2.0 * (i - 500);
    check_silu(*state, "far", 1001, sweep, false);
}

static void test_additions(void **state) {
    for (int i = 0; i < 2 * N_LENGTHS; i++) {
        int64_t n = lengths[i / 2];
        enum OpKind kind = i % 2 ? OP_F32 : OP_ACT;
        struct OpCase c;
        op_case_begin(&c, *state, "%s n %d", i % 2 ? "add_f32" : "act_add", (int)n);
        struct OpTensor *a = op_input(&c, "a", kind, 1, n), *b = op_input(&c, "b", kind, 1, n);
        struct OpTensor *out = op_output(&c, "out", kind, 1, n);
        if (kind == OP_F32)
            c.be->add_f32(c.be, op_f32(out), op_f32(a), op_f32(b), n);
        else
            c.be->act_add(c.be, op_act(out), op_act(a), op_act(b), n);
        double *expected = op_array(&c, n);
        for (int64_t k = 0; k < n; k++) expected[k] = a->values[k] + b->values[k];
        op_check_exact(&c, out, expected); /* one addition, rounded once */
        op_case_end(&c);
    }
}

struct RowsAdd {
    int64_t batch, n_elems;
    double *in, *row, *dout;
};

static double rows_add_loss(const void *problem) {
    const struct RowsAdd *p = problem;
    double sum = 0.0;
    for (int64_t i = 0; i < p->batch * p->n_elems; i++)
        sum += p->dout[i] * (p->in[i] + p->row[i % p->n_elems]);
    return sum;
}

static const struct {
    int64_t batch, n_elems, stride;
} row_shapes[] = {{1, 1, 1}, {3, 37, 37}, {1, 72, 216}, {129, 5, 11}, {4, 216, 432}};
enum { N_ROW_SHAPES = sizeof row_shapes / sizeof *row_shapes };

static void test_rows_add(void **state) {
    for (int i = 0; i < N_ROW_SHAPES; i++) {
        int64_t batch = row_shapes[i].batch, n = row_shapes[i].n_elems,
                stride = row_shapes[i].stride;
        struct OpCase c;
        op_case_begin(&c, *state, "rows_add %dx%d stride %d", (int)batch, (int)n, (int)stride);
        struct OpTensor *in =
            op_strided(&c, OP_INPUT, "in", OP_F32, batch, n, stride, (stride - n) / 2);
        struct OpTensor *row = op_input(&c, "row", OP_F32, 1, n);
        struct OpTensor *out = op_output(&c, "out", OP_F32, batch, n);
        c.be->rows_add(c.be, op_f32(out), op_f32(in), stride, op_f32(row), batch, n);
        double *expected = op_array(&c, out->n_elems);
        for (int64_t k = 0; k < out->n_elems; k++) expected[k] = in->values[k] + row->values[k % n];
        op_check_exact(&c, out, expected);
        op_case_end(&c);
    }
}

/* wanted: bit 0 for din, bit 1 for drow. */
static void check_rows_add_backward(void *suite, int shape, int wanted) {
    int64_t batch = row_shapes[shape].batch, n = row_shapes[shape].n_elems;
    int64_t stride = row_shapes[shape].stride;
    struct OpCase c;
    op_case_begin(&c, suite, "rows_add_backward %dx%d stride %d wanted %d", (int)batch, (int)n,
                  (int)stride, wanted);
    struct OpTensor *dout = op_input(&c, "dout", OP_F32, batch, n);
    struct OpTensor *din =
        wanted & 1 ? op_strided(&c, OP_UPDATED, "din", OP_F32, batch, n, stride, (stride - n) / 2)
                   : NULL;
    struct OpTensor *drow = wanted & 2 ? op_accumulator(&c, "drow", OP_F32, 1, n) : NULL;
    c.be->rows_add_backward(c.be, op_f32(din), stride, op_f32(drow), op_f32(dout), batch, n);
    struct RowsAdd p = {batch, n, op_array(&c, batch * n), op_array(&c, n), dout->values};
    double *expected_din = op_finite_differences(&c, p.in, batch * n, rows_add_loss, &p);
    double *expected_drow = op_finite_differences(&c, p.row, n, rows_add_loss, &p);
    if (din) op_check_gradient(&c, din, expected_din, op_tolerance(din, 1));
    if (drow) op_check_gradient(&c, drow, expected_drow, op_tolerance(drow, batch));
    op_case_end(&c);
}

static void test_rows_add_backward(void **state) {
    for (int shape = 0; shape < N_ROW_SHAPES; shape++)
        for (int wanted = 1; wanted < 4; wanted++) check_rows_add_backward(*state, shape, wanted);
}

static void test_conversions(void **state) {
    for (int i = 0; i < N_LENGTHS; i++) {
        int64_t n = lengths[i];
        struct OpCase c;
        op_case_begin(&c, *state, "act_from_f32 and act_to_f32 n %d", (int)n);
        struct OpTensor *x = op_input(&c, "x", OP_F32, 1, n),
                        *back = op_output(&c, "y", OP_F32, 1, n);
        struct OpTensor *y = op_output(&c, "y", OP_ACT, 1, n);
        c.be->act_from_f32(c.be, op_act(y), op_f32(x), n);
        c.be->act_to_f32(c.be, op_f32(back), op_act(y), n);
        op_check_exact(&c, y, x->values);
        op_check_exact(&c, back, op_download(&c, y));
        op_case_end(&c);
    }
}

struct Mix {
    int64_t n_elems;
    double *m, *h, *logit, *dout;
};

static double mix_at(const struct Mix *p, int64_t i) {
    double g = 1.0 / (1.0 + exp(-p->logit[0]));
    return (1.0 - g) * p->m[i] + g * p->h[i];
}

static double mix_loss(const void *problem) {
    const struct Mix *p = problem;
    double sum = 0.0;
    for (int64_t i = 0; i < p->n_elems; i++) sum += p->dout[i] * mix_at(p, i);
    return sum;
}

static void check_mix(void *suite, int64_t n, bool with_dlogit) {
    struct OpCase c;
    op_case_begin(&c, suite, "mix n %d%s", (int)n, with_dlogit ? "" : " without dlogit");
    struct OpTensor *m = op_input(&c, "m", OP_ACT, 1, n), *h = op_input(&c, "h", OP_ACT, 1, n);
    struct OpTensor *logit = op_input(&c, "logit", OP_F32, 1, 1);
    struct OpTensor *dout = op_input(&c, "dout", OP_ACT, 1, n);
    struct OpTensor *out = op_output(&c, "out", OP_ACT, 1, n);
    struct OpTensor *dm = op_output(&c, "dm", OP_ACT, 1, n),
                    *dh = op_output(&c, "dh", OP_ACT, 1, n);
    struct OpTensor *dlogit = with_dlogit ? op_accumulator(&c, "dlogit", OP_F32, 1, 1) : NULL;
    c.be->mix_forward(c.be, op_act(out), op_act(m), op_act(h), op_f32(logit), n);
    c.be->mix_backward(c.be, op_act(dm), op_act(dh), op_f32(dlogit), op_act(dout), op_act(m),
                       op_act(h), op_f32(logit), n);
    struct Mix p = {n, m->values, h->values, logit->values, dout->values};
    double *expected = op_array(&c, n);
    for (int64_t i = 0; i < n; i++) expected[i] = mix_at(&p, i);
    op_check_values(&c, out, expected, op_tolerance(out, 1));
    op_check_gradient(&c, dm, op_finite_differences(&c, p.m, n, mix_loss, &p), op_tolerance(dm, 1));
    op_check_gradient(&c, dh, op_finite_differences(&c, p.h, n, mix_loss, &p), op_tolerance(dh, 1));
    expected = op_finite_differences(&c, p.logit, 1, mix_loss, &p);
    if (dlogit) op_check_gradient(&c, dlogit, expected, 4.0 * op_tolerance(dlogit, n));
    op_case_end(&c);
}

static void test_mix(void **state) {
    for (int i = 0; i < N_LENGTHS; i++) {
        check_mix(*state, lengths[i], true);
        check_mix(*state, lengths[i], false);
    }
    check_mix(*state, 4099, true);
}

static void test_columns(void **state) {
    const int64_t shapes[][2] = {{1, 1}, {3, 37}, {129, 12}, {5, 256}};
    for (int i = 0; i < 4; i++) {
        int64_t rows = shapes[i][0], dim = shapes[i][1];
        struct OpCase c;
        op_case_begin(&c, *state, "columns %dx%d", (int)rows, (int)dim);
        struct OpTensor *a = op_input(&c, "a", OP_ACT, rows, dim);
        struct OpTensor *b = op_input(&c, "b", OP_ACT, rows, dim);
        struct OpTensor *joined = op_output(&c, "joined", OP_ACT, rows, 2 * dim);
        struct OpTensor *in = op_input(&c, "in", OP_ACT, rows, 2 * dim);
        struct OpTensor *left = op_output(&c, "left", OP_ACT, rows, dim);
        struct OpTensor *right = op_output(&c, "right", OP_ACT, rows, dim);
        c.be->columns_join(c.be, op_act(joined), op_act(a), op_act(b), rows, dim);
        c.be->columns_split(c.be, op_act(left), op_act(right), op_act(in), rows, dim);
        double *expected = op_array(&c, joined->n_elems);
        double *halves[2] = {op_array(&c, a->n_elems), op_array(&c, a->n_elems)};
        for (int64_t k = 0; k < joined->n_elems; k++) {
            int64_t row = k / (2 * dim), column = k % (2 * dim), at = row * dim + column % dim;
            expected[k] = column < dim ? a->values[at] : b->values[at];
            halves[column / dim][at] = in->values[k];
        }
        op_check_exact(&c, joined, expected);
        /* Splitting is the way back through a join, so its bugs are planted as a gradient's are. */
        op_check_gradient(&c, left, halves[0], op_tolerance(left, 1));
        op_check_gradient(&c, right, halves[1], op_tolerance(right, 1));
        op_case_end(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sinusoid),
        cmocka_unit_test(test_silu),
        cmocka_unit_test(test_additions),
        cmocka_unit_test(test_rows_add),
        cmocka_unit_test(test_rows_add_backward),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_mix),
        cmocka_unit_test(test_columns),
    };
    return op_run_tests("embed", tests, sizeof tests / sizeof *tests);
}
