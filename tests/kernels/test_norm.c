/* Layer norm with modulation and gated residuals against naive versions in double.  Gradients
 * against finite differences of those; where these would take too long, against a naive backward
 * that agrees with them elsewhere. */
#include <math.h>

#include "op_check.h"

struct LayerNorm {
    struct NormShape shape;
    double *x, *scale, *shift, *dy;
};

static void naive_statistics(const struct LayerNorm *p, int64_t row, double *mean, double *rstd) {
    const double *x = p->x + row * p->shape.dim;
    double sum = 0.0, squares = 0.0;
    for (int64_t j = 0; j < p->shape.dim; j++) sum += x[j];
    *mean = sum / (double)p->shape.dim;
    for (int64_t j = 0; j < p->shape.dim; j++) squares += (x[j] - *mean) * (x[j] - *mean);
    *rstd = 1.0 / sqrt(squares / (double)p->shape.dim + (double)p->shape.eps);
}

/* The row of scale and shift, densely stored, that belongs to a token. */
static int64_t affine_row(struct NormShape s, int64_t row) {
    return s.stride ? row / s.tokens : 0;
}

static double naive_output(const struct LayerNorm *p, int64_t i, double mean, double rstd) {
    int64_t dim = p->shape.dim, at = affine_row(p->shape, i / dim) * dim + i % dim;
    return (p->x[i] - mean) * rstd * ((double)p->shape.one + p->scale[at]) + p->shift[at];
}

static double layer_norm_loss(const void *problem) {
    const struct LayerNorm *p = problem;
    double sum = 0.0, mean = 0.0, rstd = 0.0;
    for (int64_t i = 0; i < p->shape.batch * p->shape.tokens * p->shape.dim; i++) {
        if (i % p->shape.dim == 0) naive_statistics(p, i / p->shape.dim, &mean, &rstd);
        sum += p->dy[i] * naive_output(p, i, mean, rstd);
    }
    return sum;
}

/* Adds to dscale and dshift. */
static void naive_backward(const struct LayerNorm *p, double *dx, double *dscale, double *dshift) {
    int64_t dim = p->shape.dim;
    for (int64_t row = 0; row < p->shape.batch * p->shape.tokens; row++) {
        double mean, rstd, g_mean = 0.0, g_xhat_mean = 0.0;
        const double *x = p->x + row * dim, *dy = p->dy + row * dim;
        int64_t affine = affine_row(p->shape, row) * dim;
        const double *scale = p->scale + affine;
        naive_statistics(p, row, &mean, &rstd);
        for (int64_t j = 0; j < dim; j++) {
            double g = dy[j] * ((double)p->shape.one + scale[j]), xhat = (x[j] - mean) * rstd;
            g_mean += g / (double)dim;
            g_xhat_mean += g * xhat / (double)dim;
            dscale[affine + j] += dy[j] * xhat;
            dshift[affine + j] += dy[j];
        }
        for (int64_t j = 0; j < dim; j++) {
            double g = dy[j] * ((double)p->shape.one + scale[j]), xhat = (x[j] - mean) * rstd;
            dx[row * dim + j] = rstd * (g - g_mean - xhat * g_xhat_mean);
        }
    }
}

/* Shift and scale as the model keeps them: two of six rows of a sample's modulation, or a weight
 * and a bias shared by all samples.  Multiples of 8 channels, and others; rows for one warp of a
 * GPU and for several, up to the widest that it takes; more rows than one would keep apart in the
 * sums over rows. */
static const struct NormShape shapes[] = {
    {.batch = 2, .tokens = 1, .dim = 36, .one = 1, .stride = 6 * 36},
    {.batch = 1, .tokens = 5, .dim = 37, .one = 1, .stride = 6 * 37},
    {.batch = 3, .tokens = 77, .dim = 12, .one = 1, .stride = 6 * 12},
    {.batch = 1, .tokens = 3, .dim = 128, .one = 1, .stride = 2 * 128},
    {.batch = 3, .tokens = 5, .dim = 70, .one = 0, .stride = 0},
    {.batch = 1, .tokens = 300, .dim = 6, .one = 1, .stride = 12},
    {.batch = 2, .tokens = 150, .dim = 5, .one = 0, .stride = 0},
    {.batch = 2, .tokens = 9, .dim = 64, .one = 0, .stride = 0},
    {.batch = 1, .tokens = 67, .dim = 584, .one = 1, .stride = 6 * 584},
    {.batch = 2, .tokens = 33, .dim = 1536, .one = 1, .stride = 6 * 1536},
    {.batch = 1, .tokens = 43, .dim = 1030, .one = 0, .stride = 0},
    {.batch = 1, .tokens = 3, .dim = 10240, .one = 1, .stride = 6 * 10240},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_DIFFERENCES = 4000 };

static struct OpTensor *affine_tensor(struct OpCase *c, enum OpRole role, const char *name,
                                      struct NormShape s, int64_t slot) {
    if (!s.stride) return op_strided(c, role, name, OP_F32, 1, s.dim, s.dim, 0);
    return op_strided(c, role, name, OP_F32, s.batch, s.dim, s.stride, slot * s.dim);
}

struct NormCase {
    struct OpCase c;
    struct NormShape s;
    struct OpTensor *x, *scale, *shift;
    struct LayerNorm p;
};

static void norm_begin(struct NormCase *n, void *suite, const char *what, struct NormShape s) {
    op_case_begin(&n->c, suite, "%s %dx%dx%d stride %d", what, (int)s.batch, (int)s.tokens,
                  (int)s.dim, (int)s.stride);
    s.eps = 1e-6f;
    n->s = s;
    n->x = op_input(&n->c, "x", OP_ACT, s.batch * s.tokens, s.dim);
    n->scale = affine_tensor(&n->c, OP_INPUT, "scale", s, 1);
    n->shift = affine_tensor(&n->c, OP_INPUT, "shift", s, 0);
    op_rescale(&n->c, n->x, 1.5, 0.7);
    n->p = (struct LayerNorm){
        .shape = s, .x = n->x->values, .scale = n->scale->values, .shift = n->shift->values};
}

/* Compares with the norm of n->p; the mean's error is relative to the size of x. */
static void check_normed(struct NormCase *n, struct OpTensor *y, struct OpTensor *mean,
                         struct OpTensor *rstd, double factor) {
    struct OpCase *c = &n->c;
    struct NormShape s = n->s;
    int64_t rows = s.batch * s.tokens;
    double *expected = op_array(c, y->n_elems), *means = op_array(c, rows),
           *rstds = op_array(c, rows);
    for (int64_t i = 0; i < y->n_elems; i++) {
        int64_t row = i / s.dim;
        naive_statistics(&n->p, row, &means[row], &rstds[row]);
        expected[i] = naive_output(&n->p, i, means[row], rstds[row]);
    }
    op_check_values(c, mean, means, factor * op_tolerance(mean, s.dim));
    op_check_values(c, rstd, rstds, factor * op_tolerance(rstd, s.dim));
    op_check_values(c, y, expected, factor * op_tolerance(y, s.dim));
}

static void check_layer_norm_forward(struct NormCase *n, double factor) {
    struct OpCase *c = &n->c;
    int64_t rows = n->s.batch * n->s.tokens;
    struct OpTensor *y = op_output(c, "y", OP_ACT, rows, n->s.dim);
    struct OpTensor *mean = op_output(c, "mean", OP_F32, 1, rows);
    struct OpTensor *rstd = op_output(c, "rstd", OP_F32, 1, rows);
    c->be->layer_norm_forward(c->be, op_act(y), op_f32(mean), op_f32(rstd), op_act(n->x),
                              op_f32(n->scale), op_f32(n->shift), n->s);
    check_normed(n, y, mean, rstd, factor);
}

static void test_layer_norm_forward(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct NormCase n;
        norm_begin(&n, *state, "layer_norm_forward", shapes[i]);
        check_layer_norm_forward(&n, 1.0);
        op_case_end(&n.c);
    }
}

/* E[x^2] - E[x]^2 in float32 would lose the variance here: the mean is 150 deviations. */
static void test_layer_norm_far_from_zero(void **state) {
    struct NormCase n;
    norm_begin(&n, *state, "layer_norm_forward far from zero", shapes[3]);
    op_rescale(&n.c, n.x, 1.0, 150.0);
    check_layer_norm_forward(&n, 10.0);
    op_case_end(&n.c);
}

/* dx as if the mean and the deviation were constants. */
static double *without_means(struct OpCase *c, const struct LayerNorm *p) {
    struct NormShape s = p->shape;
    double *wrong = op_array(c, s.batch * s.tokens * s.dim), mean, rstd;
    for (int64_t i = 0; i < s.batch * s.tokens * s.dim; i++) {
        naive_statistics(p, i / s.dim, &mean, &rstd);
        double scale = p->scale[affine_row(s, i / s.dim) * s.dim + i % s.dim];
        wrong[i] = rstd * p->dy[i] * ((double)s.one + scale);
    }
    return wrong;
}

/* Adds a part of y to dy, so that the terms of the statistics' own gradients, which mean(dy y)
 * scales, stand out from the rounding of dx in the narrowest type. */
static void lean_towards_output(struct NormCase *n, struct OpTensor *dy, const double *means,
                                const double *rstds) {
    for (int64_t i = 0; i < dy->n_elems; i++)
        dy->values[i] += 0.5 * naive_output(&n->p, i, means[i / n->s.dim], rstds[i / n->s.dim]);
    op_put(&n->c, dy, dy->values);
}

struct Gradients {
    double *dx, *dscale, *dshift;
};

static struct Gradients expected_gradients(struct OpCase *c, struct NormCase *n) {
    int64_t n_elems = n->x->n_elems, n_affine = n->scale->n_elems;
    struct Gradients g = {op_array(c, n_elems), op_array(c, n_affine), op_array(c, n_affine)};
    naive_backward(&n->p, g.dx, g.dscale, g.dshift);
    if (n_elems > MAX_DIFFERENCES) return g;
    const struct {
        const char *what;
        double *x, *gradient;
        int64_t n_elems;
    } checks[] = {{"dx", n->p.x, g.dx, n_elems},
                  {"dscale", n->p.scale, g.dscale, n_affine},
                  {"dshift", n->p.shift, g.dshift, n_affine}};
    for (int i = 0; i < 3; i++)
        op_check_references(
            c, checks[i].what, checks[i].gradient,
            op_finite_differences(c, checks[i].x, checks[i].n_elems, layer_norm_loss, &n->p),
            checks[i].n_elems);
    return g;
}

static void check_layer_norm_backward(void *suite, struct NormShape shape, bool accumulate,
                                      bool with_params) {
    struct NormCase n;
    norm_begin(&n, suite, accumulate ? "layer_norm_backward accumulating" : "layer_norm_backward",
               shape);
    struct OpCase *c = &n.c;
    struct NormShape s = n.s;
    int64_t rows = s.batch * s.tokens;
    struct OpTensor *dy = op_input(c, "dy", OP_ACT, rows, s.dim);
    struct OpTensor *mean = op_input(c, "mean", OP_F32, 1, rows);
    struct OpTensor *rstd = op_input(c, "rstd", OP_F32, 1, rows);
    n.p.dy = dy->values;
    for (int64_t row = 0; row < rows; row++)
        naive_statistics(&n.p, row, &mean->values[row], &rstd->values[row]);
    lean_towards_output(&n, dy, mean->values, rstd->values);
    op_put(c, mean, mean->values);
    op_put(c, rstd, rstd->values);
    struct OpTensor *dx = op_strided(c, accumulate ? OP_UPDATED : OP_OVERWRITTEN, "dx", OP_ACT,
                                     rows, s.dim, s.dim, 0);
    struct OpTensor *dscale = with_params ? affine_tensor(c, OP_UPDATED, "dscale", s, 1) : NULL;
    struct OpTensor *dshift = with_params ? affine_tensor(c, OP_UPDATED, "dshift", s, 0) : NULL;
    c->be->layer_norm_backward(c->be, op_act(dx), op_f32(dscale), op_f32(dshift), op_act(dy),
                               op_act(n.x), op_f32(mean), op_f32(rstd), op_f32(n.scale), s,
                               accumulate);

    struct Gradients expected = expected_gradients(c, &n);
    op_check_gradient(c, dx, expected.dx, 2.0 * op_tolerance(dx, s.dim));
    op_check_rejects(c, dx, expected.dx, without_means(c, &n.p), 2.0 * op_tolerance(dx, s.dim),
                     "statistics taken for constants");
    if (with_params) {
        int64_t reduction = rows / dscale->rows;
        op_check_gradient(c, dscale, expected.dscale, 2.0 * op_tolerance(dscale, reduction));
        op_check_gradient(c, dshift, expected.dshift, op_tolerance(dshift, reduction));
    }
    op_case_end(c);
}

static void test_layer_norm_backward(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        check_layer_norm_backward(*state, shapes[i], false, true);
        check_layer_norm_backward(*state, shapes[i], true, true);
        check_layer_norm_backward(*state, shapes[i], true, false);
    }
}

struct Gate {
    struct NormShape shape;
    double *x, *h, *gate, *dout;
};

static double gate_at(const struct Gate *p, int64_t i) {
    int64_t dim = p->shape.dim;
    return p->gate ? p->gate[i / dim / p->shape.tokens * dim + i % dim] : 1.0;
}

/* Element i of x + h gate. */
static double gate_sum(const struct Gate *p, int64_t i) {
    return p->x[i] + p->h[i] * gate_at(p, i);
}

static double gate_loss(const void *problem) {
    const struct Gate *p = problem;
    double sum = 0.0;
    for (int64_t i = 0; i < p->shape.batch * p->shape.tokens * p->shape.dim; i++)
        sum += p->dout[i] * gate_sum(p, i);
    return sum;
}

static void test_gate_forward(void **state) {
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        struct NormShape s = shapes[i / 2];
        if (!s.stride) continue; /* gates are per sample */
        struct OpCase c;
        op_case_begin(&c, *state, "gate_forward %dx%dx%d %s", (int)s.batch, (int)s.tokens,
                      (int)s.dim, i % 2 ? "gated" : "plain");
        struct OpTensor *x = op_input(&c, "x", OP_ACT, s.batch * s.tokens, s.dim);
        struct OpTensor *h = op_input(&c, "h", OP_ACT, s.batch * s.tokens, s.dim);
        struct OpTensor *gate = i % 2 ? affine_tensor(&c, OP_INPUT, "gate", s, 1) : NULL;
        struct OpTensor *out = op_output(&c, "out", OP_ACT, s.batch * s.tokens, s.dim);
        c.be->gate_forward(c.be, op_act(out), op_act(x), op_act(h), op_f32(gate), s);
        struct Gate p = {.shape = s, .x = x->values, .h = h->values};
        p.gate = gate ? gate->values : NULL;
        double *expected = op_array(&c, out->n_elems);
        for (int64_t k = 0; k < out->n_elems; k++) expected[k] = gate_sum(&p, k);
        op_check_values(&c, out, expected, op_tolerance(out, 1));
        op_case_end(&c);
    }
}

/* Rounding `out` to its type before the norm moves mean and rstd by far more than float32 may.
 * Rows of the gate may be apart by what divides into no wide accesses. */
static void check_gate_norm(void *suite, struct NormShape s, bool gated) {
    struct NormCase n;
    norm_begin(&n, suite, gated ? "gate_norm_forward gated" : "gate_norm_forward plain", s);
    struct OpCase *c = &n.c;
    int64_t rows = s.batch * s.tokens, gate_stride = s.stride ? s.stride : 6 * s.dim + 1;
    struct OpTensor *h = op_input(c, "h", OP_ACT, rows, s.dim), *gate = NULL;
    if (gated) gate = op_strided(c, OP_INPUT, "gate", OP_F32, s.batch, s.dim, gate_stride, s.dim);
    struct OpTensor *out = op_output(c, "out", OP_ACT, rows, s.dim);
    struct OpTensor *y = op_output(c, "y", OP_ACT, rows, s.dim);
    struct OpTensor *mean = op_output(c, "mean", OP_F32, 1, rows);
    struct OpTensor *rstd = op_output(c, "rstd", OP_F32, 1, rows);
    c->be->gate_norm_forward(c->be, op_act(out), op_act(y), op_f32(mean), op_f32(rstd), op_act(n.x),
                             op_act(h), op_f32(gate), gated ? gate_stride : 0, op_f32(n.scale),
                             op_f32(n.shift), n.s);
    struct Gate residual = {.shape = n.s, .x = n.x->values, .h = h->values};
    residual.gate = gate ? gate->values : NULL;
    double *expected = op_array(c, out->n_elems);
    for (int64_t k = 0; k < out->n_elems; k++) expected[k] = gate_sum(&residual, k);
    op_check_values(c, out, expected, op_tolerance(out, 1));
    n.p.x = op_download(c, out);
    check_normed(&n, y, mean, rstd, 1.0);
    op_case_end(c);
}

static void test_gate_norm_forward(void **state) {
    for (int i = 0; i < 2 * N_SHAPES; i++) check_gate_norm(*state, shapes[i / 2], i % 2);
}

static void test_gate_backward(void **state) {
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        struct NormShape s = shapes[i / 2];
        if (!s.stride) continue;
        struct OpCase c;
        op_case_begin(&c, *state, "gate_backward %dx%dx%d %s", (int)s.batch, (int)s.tokens,
                      (int)s.dim, i % 2 ? "" : "without dgate");
        struct OpTensor *h = op_input(&c, "h", OP_ACT, s.batch * s.tokens, s.dim);
        struct OpTensor *dout = op_input(&c, "dout", OP_ACT, s.batch * s.tokens, s.dim);
        struct OpTensor *gate = affine_tensor(&c, OP_INPUT, "gate", s, 1);
        struct OpTensor *dh = op_output(&c, "dh", OP_ACT, s.batch * s.tokens, s.dim);
        struct OpTensor *dgate = i % 2 ? affine_tensor(&c, OP_UPDATED, "dgate", s, 1) : NULL;
        c.be->gate_backward(c.be, op_act(dh), op_f32(dgate), op_act(dout), op_act(h), op_f32(gate),
                            s);
        struct Gate p = {.shape = s, .h = h->values, .gate = gate->values, .dout = dout->values};
        p.x = op_array(&c, h->n_elems);
        double *dh_expected = op_array(&c, h->n_elems);
        double *dgate_expected = op_array(&c, gate->n_elems);
        for (int64_t k = 0; k < h->n_elems; k++) {
            dh_expected[k] = p.dout[k] * gate_at(&p, k);
            dgate_expected[k / s.dim / s.tokens * s.dim + k % s.dim] += p.dout[k] * p.h[k];
        }
        if (h->n_elems <= MAX_DIFFERENCES) {
            op_check_references(&c, "dh", dh_expected,
                                op_finite_differences(&c, p.h, h->n_elems, gate_loss, &p),
                                h->n_elems);
            op_check_references(&c, "dgate", dgate_expected,
                                op_finite_differences(&c, p.gate, gate->n_elems, gate_loss, &p),
                                gate->n_elems);
        }
        op_check_gradient(&c, dh, dh_expected, op_tolerance(dh, 1));
        if (dgate) op_check_gradient(&c, dgate, dgate_expected, op_tolerance(dgate, s.tokens));
        op_case_end(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_norm_forward),  cmocka_unit_test(test_layer_norm_far_from_zero),
        cmocka_unit_test(test_layer_norm_backward), cmocka_unit_test(test_gate_forward),
        cmocka_unit_test(test_gate_norm_forward),   cmocka_unit_test(test_gate_backward),
    };
    return op_run_tests("norm", tests, sizeof tests / sizeof *tests);
}
