/* RMS norm and rotary embedding of queries and keys against a naive version in double.  Gradients
 * against finite differences of it; where these would take too long, against a naive backward that
 * agrees with them elsewhere.  x and dx are slices of a [rows, 3 D] projection. */
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

/* Channel i of dz, the gradient before the rotation. */
static double naive_dz(const struct QkNorm *p, int64_t i) {
    int64_t dim = p->shape.dim, pairs = dim / p->shape.heads / 2, column = i % dim;
    if (!p->cos_sin) return p->dy[i];
    const double *cs = p->cos_sin + (i / dim % p->shape.tokens * pairs + column / 2 % pairs) * 2;
    return p->dy[i] * cs[0] + (column % 2 ? -1.0 : 1.0) * p->dy[i ^ 1] * cs[1];
}

/* Adds to dw. */
static void naive_backward(const struct QkNorm *p, double *dx, double *dw) {
    int64_t dim = p->shape.dim;
    for (int64_t row = 0; row < p->shape.batch * p->shape.tokens; row++) {
        double rstd = naive_rstd(p, row), mean = 0.0;
        for (int64_t j = 0; j < dim; j++) {
            double dz = naive_dz(p, row * dim + j), x = p->x[row * dim + j];
            mean += dz * p->w[j] * x / (double)dim;
            dw[j] += dz * x * rstd;
        }
        for (int64_t j = 0; j < dim; j++) {
            double dz = naive_dz(p, row * dim + j), x = p->x[row * dim + j];
            dx[row * dim + j] = rstd * (dz * p->w[j] - x * rstd * rstd * mean);
        }
    }
}

/* dim = heads * head_dim, head_dim 12, 18, 24, 6, 4, 128 and 22: multiples of 8, and others; rows
 * for one warp of a GPU and for several; more rows than one would keep apart in dw's sum. */
static const struct QkNormShape shapes[] = {
    {.batch = 2, .tokens = 1, .dim = 36, .heads = 3},
    {.batch = 1, .tokens = 5, .dim = 36, .heads = 2},
    {.batch = 2, .tokens = 5, .dim = 96, .heads = 4},
    {.batch = 3, .tokens = 77, .dim = 6, .heads = 1},
    {.batch = 1, .tokens = 140, .dim = 8, .heads = 2},
    {.batch = 2, .tokens = 3, .dim = 128, .heads = 1},
    {.batch = 2, .tokens = 23, .dim = 640, .heads = 5},
    {.batch = 1, .tokens = 45, .dim = 528, .heads = 24},
    {.batch = 1, .tokens = 3, .dim = 1536, .heads = 12},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_DIFFERENCES = 2500 };

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

/* Adds a part of y to dy, so that the term of rstd's own gradient, which mean(dy y) scales, stands
 * out from the rounding of dx in the narrowest type. */
static void lean_towards_output(struct QkCase *q, struct OpTensor *dy) {
    for (int64_t i = 0; i < dy->n_elems; i++)
        dy->values[i] += 0.5 * naive_output(&q->p, i, naive_rstd(&q->p, i / q->s.dim));
    op_put(&q->c, dy, dy->values);
}

struct Gradients {
    double *dx, *dw;
};

static struct Gradients expected_gradients(struct QkCase *q) {
    struct OpCase *c = &q->c;
    int64_t n_elems = q->x->n_elems, dim = q->s.dim;
    struct Gradients g = {op_array(c, n_elems), op_array(c, dim)};
    naive_backward(&q->p, g.dx, g.dw);
    if (n_elems > MAX_DIFFERENCES) return g;
    op_check_references(c, "dx", g.dx,
                        op_finite_differences(c, q->p.x, n_elems, qk_norm_loss, &q->p), n_elems);
    op_check_references(c, "dw", g.dw, op_finite_differences(c, q->p.w, dim, qk_norm_loss, &q->p),
                        dim);
    return g;
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
    lean_towards_output(&q, dy);
    q.p.dy = dy->values;
    struct OpTensor *dx =
        op_strided(c, OP_OVERWRITTEN, "dx", OP_ACT, rows, s.dim, s.x_stride, q.x->offset);
    struct OpTensor *dw = with_dw ? op_accumulator(c, "dw", OP_F32, 1, s.dim) : NULL;
    c->be->qk_norm_backward(c->be, op_act(dx), op_f32(dw), op_act(dy), op_act(q.x), op_f32(rstd),
                            op_f32(q.w), op_f32(q.cos_sin), s);

    struct Gradients expected = expected_gradients(&q);
    double tolerance = 2.0 * op_tolerance(dx, s.dim);
    op_check_gradient(c, dx, expected.dx, tolerance);
    op_check_rejects(c, dx, expected.dx, without_mean(&q, c, expected.dx), tolerance,
                     "rstd taken for a constant");
    if (dw) op_check_gradient(c, dw, expected.dw, 2.0 * op_tolerance(dw, rows));
    if (q.cos_sin) {
        reverse_rotation(&q);
        struct Gradients wrong = {op_array(c, q.x->n_elems), op_array(c, s.dim)};
        naive_backward(&q.p, wrong.dx, wrong.dw);
        op_check_rejects(c, dx, expected.dx, wrong.dx, tolerance, "rotated the wrong way");
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
