/* Group norm with leaky ReLU, mean pooling and the MLP's leaky ReLU against naive versions in
 * double; gradients against finite differences of those. */
#include <math.h>

#include "op_check.h"

struct GroupNorm {
    struct GroupNormShape shape;
    double *x, *w, *b, *dy;
};

static int64_t group_elems(struct GroupNormShape s) {
    return s.channels / s.groups * s.positions;
}

/* A group of a sample is a run of consecutive elements. */
static void naive_statistics(const struct GroupNorm *p, int64_t group, double *mean, double *rstd) {
    int64_t n = group_elems(p->shape);
    const double *x = p->x + group * n;
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - *mean) * (x[i] - *mean);
    *rstd = 1.0 / sqrt(squares / (double)n + (double)p->shape.eps);
}

static double naive_leaky(double x, double slope) {
    return x > 0.0 ? x : slope * x;
}

static double naive_output(const struct GroupNorm *p, int64_t i, double mean, double rstd) {
    int64_t channel = i / p->shape.positions % p->shape.channels;
    double z = (p->x[i] - mean) * rstd * p->w[channel] + p->b[channel];
    return naive_leaky(z, (double)p->shape.slope);
}

static double group_norm_loss(const void *problem) {
    const struct GroupNorm *p = problem;
    int64_t n_group = group_elems(p->shape);
    double sum = 0.0, mean = 0.0, rstd = 0.0;
    for (int64_t i = 0; i < p->shape.batch * p->shape.channels * p->shape.positions; i++) {
        if (i % n_group == 0) naive_statistics(p, i / n_group, &mean, &rstd);
        sum += p->dy[i] * naive_output(p, i, mean, rstd);
    }
    return sum;
}

static const struct GroupNormShape shapes[] = {
    {.batch = 2, .channels = 3, .groups = 1, .positions = 5},
    {.batch = 1, .channels = 8, .groups = 2, .positions = 1},
    {.batch = 3, .channels = 12, .groups = 3, .positions = 12},
    {.batch = 2, .channels = 36, .groups = 18, .positions = 18},
    {.batch = 1, .channels = 4, .groups = 4, .positions = 77},
    {.batch = 1, .channels = 2, .groups = 1, .positions = 133},
    {.batch = 2, .channels = 6, .groups = 3, .positions = 16},
    /* several blocks of a GPU for a plane */
    {.batch = 1, .channels = 2, .groups = 1, .positions = 2072},
    {.batch = 1, .channels = 1, .groups = 1, .positions = 2075},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct NormCase {
    struct OpCase c;
    struct GroupNormShape s;
    struct OpTensor *x, *w, *b;
    struct GroupNorm p;
};

static void norm_begin(struct NormCase *n, void *suite, const char *what, struct GroupNormShape s) {
    struct OpCase *c = &n->c;
    op_case_begin(c, suite, "%s %dx%dx%d, %d groups", what, (int)s.batch, (int)s.channels,
                  (int)s.positions, (int)s.groups);
    s.eps = 1e-5f;
    s.slope = 0.2f;
    n->s = s;
    n->x = op_input(c, "x", OP_ACT, s.batch * s.channels, s.positions);
    n->w = op_input(c, "w", OP_F32, 1, s.channels);
    n->b = op_input(c, "b", OP_F32, 1, s.channels);
    op_rescale(c, n->x, 1.5, 0.7);
    n->p = (struct GroupNorm){.shape = s, .x = n->x->values, .w = n->w->values, .b = n->b->values};
}

static void check_forward(struct NormCase *n, double factor) {
    struct OpCase *c = &n->c;
    struct GroupNormShape s = n->s;
    int64_t n_group = group_elems(s);
    struct OpTensor *y = op_output(c, "y", OP_ACT, s.batch * s.channels, s.positions);
    struct OpTensor *mean = op_output(c, "mean", OP_F32, s.batch, s.groups);
    struct OpTensor *rstd = op_output(c, "rstd", OP_F32, s.batch, s.groups);
    c->be->group_norm_leaky_forward(c->be, op_act(y), op_f32(mean), op_f32(rstd), op_act(n->x),
                                    op_f32(n->w), op_f32(n->b), s);
    double *expected = op_array(c, y->n_elems);
    double *means = op_array(c, mean->n_elems), *rstds = op_array(c, rstd->n_elems);
    for (int64_t i = 0; i < y->n_elems; i++) {
        int64_t group = i / n_group;
        naive_statistics(&n->p, group, &means[group], &rstds[group]);
        expected[i] = naive_output(&n->p, i, means[group], rstds[group]);
    }
    op_check_values(c, mean, means, factor * op_tolerance(mean, n_group));
    op_check_values(c, rstd, rstds, factor * op_tolerance(rstd, n_group));
    op_check_values(c, y, expected, factor * op_tolerance(y, n_group));
}

static void test_forward(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct NormCase n;
        norm_begin(&n, *state, "group_norm_leaky_forward", shapes[i]);
        check_forward(&n, 1.0);
        op_case_end(&n.c);
    }
}

/* E[x^2] - E[x]^2 in float32 would lose the variance here: the mean is 100 deviations. */
static void test_forward_far_from_zero(void **state) {
    struct NormCase n;
    norm_begin(&n, *state, "group_norm_leaky_forward far from zero", shapes[3]);
    op_rescale(&n.c, n.x, 1.0, 150.0);
    check_forward(&n, 10.0);
    op_case_end(&n.c);
}

/* The statistics that backward gets, as forward would have saved them. */
static struct OpTensor *statistics_input(struct NormCase *n, bool want_rstd) {
    struct OpTensor *t =
        op_input(&n->c, want_rstd ? "rstd" : "mean", OP_F32, n->s.batch, n->s.groups);
    for (int64_t group = 0; group < t->n_elems; group++) {
        double mean, rstd;
        naive_statistics(&n->p, group, &mean, &rstd);
        t->values[group] = want_rstd ? rstd : mean;
    }
    op_put(&n->c, t, t->values);
    return t;
}

/* dx as if the statistics were constants. */
static double *without_means(struct OpCase *c, const struct GroupNorm *p) {
    struct GroupNormShape s = p->shape;
    int64_t n_elems = s.batch * s.channels * s.positions;
    double *wrong = op_array(c, n_elems), mean, rstd;
    for (int64_t i = 0; i < n_elems; i++) {
        int64_t channel = i / s.positions % s.channels;
        naive_statistics(p, i / group_elems(s), &mean, &rstd);
        double slope = naive_output(p, i, mean, rstd) > 0.0 ? 1.0 : (double)s.slope;
        wrong[i] = rstd * p->dy[i] * slope * p->w[channel];
    }
    return wrong;
}

/* Adds a part of y to dy, so that the terms of the statistics' own gradients, which mean(dy y)
 * scales, stand out from the rounding of dx in the narrowest type. */
static void lean_towards_output(struct NormCase *n, struct OpTensor *dy, const double *means,
                                const double *rstds) {
    for (int64_t i = 0; i < dy->n_elems; i++) {
        int64_t group = i / group_elems(n->s);
        dy->values[i] += 0.5 * naive_output(&n->p, i, means[group], rstds[group]);
    }
    op_put(&n->c, dy, dy->values);
}

static void check_backward(void *suite, struct GroupNormShape shape, bool want_dx, bool want_dw,
                           bool want_db) {
    struct NormCase n;
    norm_begin(&n, suite, "group_norm_leaky_backward", shape);
    struct OpCase *c = &n.c;
    struct GroupNormShape s = n.s;
    struct OpTensor *dy = op_input(c, "dy", OP_ACT, s.batch * s.channels, s.positions);
    struct OpTensor *mean = statistics_input(&n, false), *rstd = statistics_input(&n, true);
    lean_towards_output(&n, dy, mean->values, rstd->values);
    struct OpTensor *dx = NULL, *dw = NULL, *db = NULL;
    if (want_dx) dx = op_output(c, "dx", OP_ACT, s.batch * s.channels, s.positions);
    if (want_dw) dw = op_accumulator(c, "dw", OP_F32, 1, s.channels);
    if (want_db) db = op_accumulator(c, "db", OP_F32, 1, s.channels);
    c->be->group_norm_leaky_backward(c->be, op_act(dx), op_f32(dw), op_f32(db), op_act(dy),
                                     op_act(n.x), op_f32(mean), op_f32(rstd), op_f32(n.w),
                                     op_f32(n.b), s);

    n.p.dy = dy->values;
    double *expected = op_finite_differences(c, n.p.x, n.x->n_elems, group_norm_loss, &n.p);
    if (want_dx) {
        double tolerance = 2.0 * op_tolerance(dx, group_elems(s));
        op_check_gradient(c, dx, expected, tolerance);
        op_check_rejects(c, dx, expected, without_means(c, &n.p), tolerance,
                         "statistics taken for constants");
    }
    if (want_dw) {
        expected = op_finite_differences(c, n.p.w, dw->n_elems, group_norm_loss, &n.p);
        op_check_gradient(c, dw, expected, 2.0 * op_tolerance(dw, s.batch * s.positions));
    }
    if (want_db) {
        expected = op_finite_differences(c, n.p.b, db->n_elems, group_norm_loss, &n.p);
        op_check_gradient(c, db, expected, op_tolerance(db, s.batch * s.positions));
    }
    op_case_end(c);
}

static void test_backward(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        check_backward(*state, shapes[i], true, true, true);
        check_backward(*state, shapes[i], true, false, false);
        check_backward(*state, shapes[i], false, true, true);
        check_backward(*state, shapes[i], false, false, true);
        check_backward(*state, shapes[i], false, true, false);
    }
}

/* A group of one element: its norm is zero, whatever x is. */
static void test_backward_of_single_element(void **state) {
    struct NormCase n;
    norm_begin(&n, *state, "group_norm_leaky_backward of one element",
               (struct GroupNormShape){.batch = 2, .channels = 3, .groups = 3, .positions = 1});
    struct OpCase *c = &n.c;
    struct OpTensor *dy = op_input(c, "dy", OP_ACT, 6, 1), *dx = op_output(c, "dx", OP_ACT, 6, 1);
    struct OpTensor *mean = statistics_input(&n, false), *rstd = statistics_input(&n, true);
    c->be->group_norm_leaky_backward(c->be, op_act(dx), NULL, NULL, op_act(dy), op_act(n.x),
                                     op_f32(mean), op_f32(rstd), op_f32(n.w), op_f32(n.b), n.s);
    op_check_vanishes(c, dx, 1e-3);
    op_case_end(c);
}

struct Pool {
    int64_t planes, positions;
    double *x, *dy;
};

static double pool_at(const struct Pool *p, int64_t plane) {
    double sum = 0.0;
    for (int64_t i = 0; i < p->positions; i++) sum += p->x[plane * p->positions + i];
    return sum / (double)p->positions;
}

static double pool_loss(const void *problem) {
    const struct Pool *p = problem;
    double sum = 0.0;
    for (int64_t plane = 0; plane < p->planes; plane++) sum += p->dy[plane] * pool_at(p, plane);
    return sum;
}

static void check_pool(void *suite, int64_t batch, int64_t channels, int64_t positions) {
    struct OpCase c;
    op_case_begin(&c, suite, "mean_pool %dx%dx%d", (int)batch, (int)channels, (int)positions);
    struct OpTensor *x = op_input(&c, "x", OP_ACT, batch * channels, positions);
    struct OpTensor *dy = op_input(&c, "dy", OP_F32, batch, channels);
    struct OpTensor *y = op_output(&c, "y", OP_F32, batch, channels);
    struct OpTensor *dx = op_output(&c, "dx", OP_ACT, batch * channels, positions);
    c.be->mean_pool_forward(c.be, op_f32(y), op_act(x), batch, channels, positions);
    c.be->mean_pool_backward(c.be, op_act(dx), op_f32(dy), batch, channels, positions);

    struct Pool p = {batch * channels, positions, x->values, dy->values};
    double *expected = op_array(&c, p.planes);
    for (int64_t plane = 0; plane < p.planes; plane++) expected[plane] = pool_at(&p, plane);
    op_check_values(&c, y, expected, op_tolerance(y, positions));
    expected = op_finite_differences(&c, p.x, dx->n_elems, pool_loss, &p);
    op_check_gradient(&c, dx, expected, op_tolerance(dx, 1));
    op_case_end(&c);
}

static void test_mean_pool(void **state) {
    check_pool(*state, 1, 2, 9);
    check_pool(*state, 3, 5, 1);
    check_pool(*state, 2, 7, 33);
    check_pool(*state, 1, 3, 64);
    check_pool(*state, 1, 2, 2072);
}

struct Leaky {
    int64_t n_elems;
    double slope, *x, *dy;
};

static double leaky_loss(const void *problem) {
    const struct Leaky *p = problem;
    double sum = 0.0;
    for (int64_t i = 0; i < p->n_elems; i++) sum += p->dy[i] * naive_leaky(p->x[i], p->slope);
    return sum;
}

static void check_leaky(void *suite, int64_t n_elems, float slope) {
    struct OpCase c;
    op_case_begin(&c, suite, "leaky_relu n=%d slope %g", (int)n_elems, (double)slope);
    struct OpTensor *x = op_input(&c, "x", OP_F32, 1, n_elems);
    struct OpTensor *dy = op_input(&c, "dy", OP_F32, 1, n_elems);
    struct OpTensor *y = op_output(&c, "y", OP_F32, 1, n_elems);
    struct OpTensor *dx = op_output(&c, "dx", OP_F32, 1, n_elems);
    c.be->leaky_relu_forward(c.be, op_f32(y), op_f32(x), slope, n_elems);
    c.be->leaky_relu_backward(c.be, op_f32(dx), op_f32(dy), op_f32(x), slope, n_elems);

    struct Leaky p = {n_elems, (double)slope, x->values, dy->values};
    double *expected = op_array(&c, n_elems);
    for (int64_t i = 0; i < n_elems; i++) expected[i] = naive_leaky(p.x[i], p.slope);
    op_check_values(&c, y, expected, op_tolerance(y, 1));
    expected = op_finite_differences(&c, p.x, n_elems, leaky_loss, &p);
    op_check_gradient(&c, dx, expected, op_tolerance(dx, 1));
    op_case_end(&c);
}

static void test_leaky_relu(void **state) {
    check_leaky(*state, 5, 0.2f);
    check_leaky(*state, 131, 0.2f);
    check_leaky(*state, 64, 0.0f);
    check_leaky(*state, 2100, 0.2f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),   cmocka_unit_test(test_forward_far_from_zero),
        cmocka_unit_test(test_backward),  cmocka_unit_test(test_backward_of_single_element),
        cmocka_unit_test(test_mean_pool), cmocka_unit_test(test_leaky_relu),
    };
    return op_run_tests("group_norm", tests, sizeof tests / sizeof *tests);
}
