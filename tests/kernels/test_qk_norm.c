/* RMS norm and rotary embedding of queries and keys against a naive version in double; gradients
 * against finite differences of it.  x and dx are slices of a [rows, 3 D] projection. */
#include <math.h>

#include "op_check.h"

struct QkNorm {
    struct QkNormShape shape;
    double *x, *w, *cos_sin, *dy;
};

static double naive_rstd(const struct QkNorm *p, int64_t row) {
    int64_t dim = p->shape.dim;
    const double *x = p->x + row * dim;
    return 1.0 / sqrt(op_dot(x, x, dim) / (double)dim + (double)p->shape.eps);
}

/* Channel i of the dense output; rstd of its row. */
static double naive_output(const struct QkNorm *p, int64_t i, double rstd) {
    int64_t dim = p->shape.dim, pairs = dim / p->shape.heads / 2, column = i % dim;
    double own = p->x[i] * rstd * p->w[column];
    if (!p->cos_sin) return own;
    double other = p->x[i ^ 1] * rstd * p->w[column ^ 1]; /* dim is even, so pairs stay in a row */
    const double *cs = p->cos_sin + (i / dim % p->shape.tokens * pairs + column / 2 % pairs) * 2;
    return column % 2 ? other * cs[1] + own * cs[0] : own * cs[0] - other * cs[1];
}

static double qk_norm_loss(const void *problem) {
    const struct QkNorm *p = problem;
    double sum = 0.0, rstd = 0.0;
    for (int64_t i = 0; i < p->shape.batch * p->shape.tokens * p->shape.dim; i++) {
        if (i % p->shape.dim == 0) rstd = naive_rstd(p, i / p->shape.dim);
        sum += p->dy[i] * naive_output(p, i, rstd);
    }
    return sum;
}

/* dim = heads * head_dim, head_dim 12, 18, 24, 6, 4 and 128. */
static const struct QkNormShape shapes[] = {
    {.batch = 2, .tokens = 1, .dim = 36, .heads = 3},
    {.batch = 1, .tokens = 5, .dim = 36, .heads = 2},
    {.batch = 2, .tokens = 5, .dim = 96, .heads = 4},
    {.batch = 3, .tokens = 77, .dim = 6, .heads = 1},
    {.batch = 1, .tokens = 140, .dim = 8, .heads = 2},
    {.batch = 2, .tokens = 3, .dim = 128, .heads = 1},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct QkCase {
    struct OpCase c;
    struct QkNormShape s;
    struct OpTensor *x, *w, *cos_sin;
    struct QkNorm p;
};

/* Variant 0: rotated, x dense.  1: rotated, x the middle slice of three.  2: not rotated. */
static void qk_begin(struct QkCase *q, void *suite, const char *what, struct QkNormShape s,
                     int variant) {
    struct OpCase *c = &q->c;
    op_case_begin(c, suite, "%s %dx%dx%d heads %d variant %d", what, (int)s.batch, (int)s.tokens,
                  (int)s.dim, (int)s.heads, variant);
    s.x_stride = variant == 1 ? 3 * s.dim : s.dim;
    s.eps = 1e-6f;
    q->s = s;
    q->x = op_strided(c, OP_INPUT, "x", OP_ACT, s.batch * s.tokens, s.dim, s.x_stride,
                      variant == 1 ? s.dim : 0);
    q->w = op_input(c, "w", OP_F32, 1, s.dim);
    int64_t n_angles = s.dim / s.heads / 2;
    q->cos_sin = variant < 2 ? op_input(c, "cos_sin", OP_F32, s.tokens, 2 * n_angles) : NULL;
    for (int64_t i = 0; i < s.tokens * n_angles && q->cos_sin; i++) {
        double angle = 3.0 * q->cos_sin->values[2 * i];
        q->cos_sin->values[2 * i] = cos(angle);
        q->cos_sin->values[2 * i + 1] = sin(angle);
    }
    if (q->cos_sin) op_put(c, q->cos_sin, q->cos_sin->values);
    q->p = (struct QkNorm){.shape = s, .x = q->x->values, .w = q->w->values};
    q->p.cos_sin = q->cos_sin ? q->cos_sin->values : NULL;
}

static void test_forward(void **state) {
    for (int i = 0; i < 3 * N_SHAPES; i++) {
        struct QkCase q;
        qk_begin(&q, *state, "qk_norm_forward", shapes[i / 3], i % 3);
        struct OpCase *c = &q.c;
        int64_t rows = q.s.batch * q.s.tokens;
        struct OpTensor *y = op_output(c, "y", OP_ACT, rows, q.s.dim);
        struct OpTensor *rstd = op_output(c, "rstd", OP_F32, 1, rows);
        c->be->qk_norm_forward(c->be, op_act(y), op_f32(rstd), op_act(q.x), op_f32(q.w),
                               op_f32(q.cos_sin), q.s);
        double *expected = op_array(c, y->n_elems), *rstds = op_array(c, rows);
        for (int64_t row = 0; row < rows; row++) rstds[row] = naive_rstd(&q.p, row);
        for (int64_t k = 0; k < y->n_elems; k++)
            expected[k] = naive_output(&q.p, k, rstds[k / q.s.dim]);
        op_check_values(c, rstd, rstds, op_tolerance(rstd, q.s.dim));
        op_check_values(c, y, expected, op_tolerance(y, q.s.dim));
        op_case_end(c);
    }
}

/* dx as if rstd were a constant: rstd dz w, where the true dx is rstd (dz w - x rstd^2 mean(dz w
 * x)) and, rotations being orthogonal, mean(dz w x) rstd = mean(dy y). */
static double *without_mean(const struct QkCase *q, struct OpCase *c, const double *dx) {
    double *wrong = op_array(c, q->x->n_elems);
    int64_t dim = q->s.dim;
    for (int64_t row = 0; row < q->s.batch * q->s.tokens; row++) {
        double sum = 0.0, rstd = naive_rstd(&q->p, row);
        for (int64_t i = row * dim; i < (row + 1) * dim; i++)
            sum += q->p.dy[i] * naive_output(&q->p, i, rstd);
        for (int64_t i = row * dim; i < (row + 1) * dim; i++)
            wrong[i] = dx[i] + q->p.x[i] * rstd * rstd * sum / (double)dim;
    }
    return wrong;
}

/* Turns every rotation round. */
static void reverse_rotation(struct QkCase *q) {
    for (int64_t i = 1; i < q->cos_sin->n_elems; i += 2) q->p.cos_sin[i] = -q->p.cos_sin[i];
}

static void check_backward(void *suite, struct QkNormShape shape, int variant, bool with_dw) {
    struct QkCase q;
    qk_begin(&q, suite, with_dw ? "qk_norm_backward" : "qk_norm_backward without dw", shape,
             variant);
    struct OpCase *c = &q.c;
    struct QkNormShape s = q.s;
    int64_t rows = s.batch * s.tokens;
    struct OpTensor *dy = op_input(c, "dy", OP_ACT, rows, s.dim);
    struct OpTensor *rstd = op_input(c, "rstd", OP_F32, 1, rows);
    for (int64_t row = 0; row < rows; row++) rstd->values[row] = naive_rstd(&q.p, row);
    op_put(c, rstd, rstd->values);
    q.p.dy = dy->values;
    struct OpTensor *dx =
        op_strided(c, OP_OVERWRITTEN, "dx", OP_ACT, rows, s.dim, s.x_stride, q.x->offset);
    struct OpTensor *dw = with_dw ? op_accumulator(c, "dw", OP_F32, 1, s.dim) : NULL;
    c->be->qk_norm_backward(c->be, op_act(dx), op_f32(dw), op_act(dy), op_act(q.x), op_f32(rstd),
                            op_f32(q.w), op_f32(q.cos_sin), s);

    double *expected = op_finite_differences(c, q.p.x, q.x->n_elems, qk_norm_loss, &q.p);
    double tolerance = 2.0 * op_tolerance(dx, s.dim);
    op_check_gradient(c, dx, expected, tolerance);
    op_check_rejects(c, dx, expected, without_mean(&q, c, expected), tolerance,
                     "rstd taken for a constant");
    double *expected_dw = op_finite_differences(c, q.p.w, s.dim, qk_norm_loss, &q.p);
    if (dw) op_check_gradient(c, dw, expected_dw, 2.0 * op_tolerance(dw, rows));
    if (q.cos_sin) {
        reverse_rotation(&q);
        double *wrong = op_finite_differences(c, q.p.x, q.x->n_elems, qk_norm_loss, &q.p);
        op_check_rejects(c, dx, expected, wrong, tolerance, "rotated the wrong way");
        reverse_rotation(&q);
    }
    op_case_end(c);
}

static void test_backward(void **state) {
    for (int i = 0; i < 3 * N_SHAPES; i++) {
        check_backward(*state, shapes[i / 3], i % 3, true);
        check_backward(*state, shapes[i / 3], i % 3, false);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward),
    };
    return op_run_tests("qk_norm", tests, sizeof tests / sizeof *tests);
}
