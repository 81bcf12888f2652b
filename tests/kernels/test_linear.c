/* Linear layers against a naive y = x W^T + b in double, on tokens and on float32 vectors.
 *
 * The naive backward, needed for the large shapes, is itself held against finite differences of the
 * naive forward on the small one. */
#include <math.h>

#include "op_check.h"

struct Linear {
    struct LinearShape shape;
    double *x, *w, *b, *dy;
    bool gelu_first; /* x are pre-activations: y = gelu(x) W^T + b */
};

static double gelu(double z) {
    return 0.5 * z * (1.0 + tanh(sqrt(2.0 / M_PI) * (z + 0.044715 * z * z * z)));
}

/* d gelu / dz by central differences. */
static double gelu_slope(double z) {
    const double step = 1e-5;
    return (gelu(z + step) - gelu(z - step)) / (2.0 * step);
}

static double naive_output(const struct Linear *p, int64_t row, int64_t out) {
    double sum = p->b[out];
    for (int64_t in = 0; in < p->shape.n_in; in++) {
        double x = p->x[row * p->shape.n_in + in];
        sum += (p->gelu_first ? gelu(x) : x) * p->w[out * p->shape.n_in + in];
    }
    return sum;
}

static double linear_loss(const void *problem) {
    const struct Linear *p = problem;
    double sum = 0.0;
    for (int64_t row = 0; row < p->shape.rows; row++)
        for (int64_t out = 0; out < p->shape.n_out; out++)
            sum += p->dy[row * p->shape.n_out + out] * naive_output(p, row, out);
    return sum;
}

/* dx, dw, db as sums over every triple of row, output and input; what came before a GELU gets its
 * slope. */
static void naive_backward(const struct Linear *p, double *dx, double *dw, double *db) {
    int64_t n_in = p->shape.n_in, n_out = p->shape.n_out;
    for (int64_t row = 0; row < p->shape.rows; row++) {
        for (int64_t out = 0; out < n_out; out++) {
            double dy = p->dy[row * n_out + out];
            db[out] += dy;
            for (int64_t in = 0; in < n_in; in++) {
                dw[out * n_in + in] += dy * p->x[row * n_in + in];
                dx[row * n_in + in] += dy * p->w[out * n_in + in];
            }
        }
    }
    for (int64_t i = 0; i < p->shape.rows * n_in && p->gelu_first; i++)
        dx[i] *= gelu_slope(p->x[i]);
}

static const struct LinearShape shapes[] = {
    {5, 7, 6},     {1, 36, 37}, {3, 37, 36},   {77, 36, 37},  {129, 12, 24},
    {129, 128, 3}, {2, 1, 1},   {65, 64, 192}, {33, 300, 70}, {1, 256, 216},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void test_forward(void **state) {
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        struct LinearShape s = shapes[i / 2];
        enum OpKind kind = i % 2 ? OP_F32 : OP_ACT;
        struct OpCase c;
        op_case_begin(&c, *state, "linear_%sforward %dx%dx%d", kind == OP_F32 ? "f32_" : "",
                      (int)s.rows, (int)s.n_in, (int)s.n_out);
        struct OpTensor *x = op_input(&c, "x", kind, s.rows, s.n_in);
        struct OpTensor *w = op_input(&c, "w", kind, s.n_out, s.n_in);
        struct OpTensor *b = op_input(&c, "b", kind, 1, s.n_out);
        struct OpTensor *y = op_output(&c, "y", kind, s.rows, s.n_out);
        if (kind == OP_ACT)
            c.be->linear_forward(c.be, op_act(y), op_act(x), op_act(w), op_act(b), s);
        else
            c.be->linear_f32_forward(c.be, op_f32(y), op_f32(x), op_f32(w), op_f32(b), s);

        struct Linear p = {.shape = s, .x = x->values, .w = w->values, .b = b->values};
        double *expected = op_array(&c, y->n_elems);
        for (int64_t k = 0; k < y->n_elems; k++)
            expected[k] = naive_output(&p, k / s.n_out, k % s.n_out);
        op_check_values(&c, y, expected, op_tolerance(y, s.n_in));
        op_case_end(&c);
    }
}

static void test_gelu_forward(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct LinearShape s = shapes[i];
        struct OpCase c;
        op_case_begin(&c, *state, "linear_gelu_forward %dx%dx%d", (int)s.rows, (int)s.n_in,
                      (int)s.n_out);
        struct OpTensor *x = op_input(&c, "x", OP_ACT, s.rows, s.n_in);
        struct OpTensor *w = op_input(&c, "w", OP_ACT, s.n_out, s.n_in);
        struct OpTensor *b = op_input(&c, "b", OP_ACT, 1, s.n_out);
        struct OpTensor *y = op_output(&c, "y", OP_ACT, s.rows, s.n_out);
        struct OpTensor *pre = op_output(&c, "pre", OP_ACT, s.rows, s.n_out);
        op_rescale(&c, w, 2.0 / sqrt((double)s.n_in), 0.0); /* both branches of the GELU matter */
        c.be->linear_gelu_forward(c.be, op_act(y), op_act(pre), op_act(x), op_act(w), op_act(b), s);

        struct Linear p = {.shape = s, .x = x->values, .w = w->values, .b = b->values};
        double *expected = op_array(&c, y->n_elems), *expected_pre = op_array(&c, y->n_elems);
        for (int64_t k = 0; k < y->n_elems; k++) {
            expected_pre[k] = naive_output(&p, k / s.n_out, k % s.n_out);
            expected[k] = gelu(expected_pre[k]);
        }
        op_check_values(&c, pre, expected_pre, op_tolerance(pre, s.n_in));
        op_check_values(&c, y, expected, 2.0 * op_tolerance(y, s.n_in));
        op_case_end(&c);
    }
}

/* What every backward test begins with: the operands, and the expected gradients. */
struct BackwardCase {
    struct OpCase c;
    struct OpTensor *x, *w, *dy;
    struct Linear p;
    double *dx, *dw, *db;
};

static void check_naive_backward(struct BackwardCase *b) {
    struct OpCase *c = &b->c;
    struct Linear *p = &b->p;
    int64_t n_out = p->shape.n_out;
    double *dx = op_finite_differences(c, p->x, b->x->n_elems, linear_loss, p);
    op_check_references(c, "dx", b->dx, dx, b->x->n_elems);
    if (p->gelu_first) return; /* dw and db are asked for without */
    double *dw = op_finite_differences(c, p->w, b->w->n_elems, linear_loss, p);
    op_check_references(c, "dw", b->dw, dw, b->w->n_elems);
    op_check_references(c, "db", b->db, op_finite_differences(c, p->b, n_out, linear_loss, p),
                        n_out);
}

static void backward_begin(struct BackwardCase *b, void *suite, const char *what, enum OpKind kind,
                           struct LinearShape s, bool gelu_first) {
    struct OpCase *c = &b->c;
    op_case_begin(c, suite, "%s %dx%dx%d", what, (int)s.rows, (int)s.n_in, (int)s.n_out);
    b->x = op_input(c, gelu_first ? "pre" : "x", kind, s.rows, s.n_in);
    b->w = op_input(c, "w", kind, s.n_out, s.n_in);
    b->dy = op_input(c, "dy", kind, s.rows, s.n_out);
    if (gelu_first) op_rescale(c, b->x, 3.0, 0.0); /* both tails of the GELU */
    b->dx = op_array(c, b->x->n_elems);
    b->dw = op_array(c, b->w->n_elems);
    b->db = op_array(c, s.n_out);
    b->p = (struct Linear){.shape = s, .x = b->x->values, .w = b->w->values, .dy = b->dy->values};
    b->p.b = op_array(c, s.n_out);
    b->p.gelu_first = gelu_first;
    naive_backward(&b->p, b->dx, b->dw, b->db);
    if (s.rows * s.n_in * s.n_out < 1000) check_naive_backward(b);
}

static void test_backward_input(void **state) {
    for (int i = 0; i < 3 * N_SHAPES; i++) {
        struct LinearShape s = shapes[i / 3];
        bool f32 = i % 3 == 0, accumulate = i % 3 == 1;
        const char *what = f32          ? "linear_f32_backward_input"
                           : accumulate ? "linear_backward_input accumulating"
                                        : "linear_backward_input";
        struct BackwardCase b;
        backward_begin(&b, *state, what, f32 ? OP_F32 : OP_ACT, s, false);
        struct OpTensor *dx = op_strided(&b.c, accumulate ? OP_UPDATED : OP_OVERWRITTEN, "dx",
                                         f32 ? OP_F32 : OP_ACT, s.rows, s.n_in, s.n_in, 0);
        const struct Backend *be = b.c.be;
        if (f32)
            be->linear_f32_backward_input(be, op_f32(dx), op_f32(b.dy), op_f32(b.w), s);
        else
            be->linear_backward_input(be, op_act(dx), op_act(b.dy), op_act(b.w), s, accumulate);
        op_check_gradient(&b.c, dx, b.dx, op_tolerance(dx, s.n_out));
        op_case_end(&b.c);
    }
}

static void test_gelu_backward_input(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct LinearShape s = shapes[i];
        struct BackwardCase b;
        backward_begin(&b, *state, "linear_gelu_backward_input", OP_ACT, s, true);
        struct OpTensor *dpre = op_output(&b.c, "dpre", OP_ACT, s.rows, s.n_in);
        b.c.be->linear_gelu_backward_input(b.c.be, op_act(dpre), op_act(b.dy), op_act(b.w),
                                           op_act(b.x), s);
        double tolerance = 2.0 * op_tolerance(dpre, s.n_out);
        op_check_gradient(&b.c, dpre, b.dx, tolerance);
        /* Planted: z Phi(z) with Phi taken for a constant, dpre = (dy W) gelu(pre) / pre. */
        double *wrong = op_array(&b.c, dpre->n_elems);
        b.p.gelu_first = false;
        naive_backward(&b.p, wrong, b.dw, b.db);
        for (int64_t k = 0; k < dpre->n_elems; k++)
            wrong[k] *= gelu(b.x->values[k]) / b.x->values[k];
        op_check_rejects(&b.c, dpre, b.dx, wrong, tolerance, "tanh taken for a constant");
        op_case_end(&b.c);
    }
}

static void test_backward_params(void **state) {
    for (int i = 0; i < 4 * N_SHAPES; i++) {
        struct LinearShape s = shapes[i / 4];
        bool f32 = i % 2, with_bias = i / 2 % 2;
        struct BackwardCase b;
        backward_begin(&b, *state, f32 ? "linear_f32_backward_params" : "linear_backward_params",
                       f32 ? OP_F32 : OP_ACT, s, false);
        struct OpTensor *dw = op_accumulator(&b.c, "dw", OP_F32, s.n_out, s.n_in);
        struct OpTensor *db = with_bias ? op_accumulator(&b.c, "db", OP_F32, 1, s.n_out) : NULL;
        const struct Backend *be = b.c.be;
        if (f32)
            be->linear_f32_backward_params(be, op_f32(dw), op_f32(db), op_f32(b.x), op_f32(b.dy),
                                           s);
        else
            be->linear_backward_params(be, op_f32(dw), op_f32(db), op_act(b.x), op_act(b.dy), s);
        op_check_gradient(&b.c, dw, b.dw, op_tolerance(dw, s.rows));
        if (db) op_check_gradient(&b.c, db, b.db, op_tolerance(db, s.rows));
        op_case_end(&b.c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),         cmocka_unit_test(test_gelu_forward),
        cmocka_unit_test(test_backward_input),  cmocka_unit_test(test_gelu_backward_input),
        cmocka_unit_test(test_backward_params),
    };
    return op_run_tests("linear", tests, sizeof tests / sizeof *tests);
}
