/* Losses against naive sums in double, and their gradients against finite differences in which the
 * factors that a contract holds constant are held constant. */
#include <math.h>

#include "op_check.h"

static const struct {
    int64_t batch, n_per_sample;
} shapes[] = {{1, 1}, {1, 5}, {3, 77}, {2, 1025}, {259, 3}, {3, 1500}, {2, 2052}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void test_squares_sum(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        int64_t batch = shapes[i].batch, n = shapes[i].n_per_sample;
        struct OpCase c;
        op_case_begin(&c, *state, "squares_sum %dx%d", (int)batch, (int)n);
        struct OpTensor *x = op_input(&c, "x", OP_F32, batch, n);
        struct OpTensor *out = op_output(&c, "out", OP_F64, 1, batch);
        c.be->squares_sum(c.be, op_f64(out), op_f32(x), batch, n);
        double *expected = op_array(&c, batch);
        for (int64_t b = 0; b < batch; b++)
            expected[b] = op_dot(x->values + b * n, x->values + b * n, n);
        op_check_values(&c, out, expected, op_tolerance(out, n));
        op_case_end(&c);
    }
}

struct Adaptive {
    int64_t batch, n_per_sample;
    double *u, *target, *denominator; /* the last [batch], constant */
    double scale;
};

static double squared_distance(const struct Adaptive *p, int64_t sample) {
    double sum = 0.0;
    for (int64_t i = sample * p->n_per_sample; i < (sample + 1) * p->n_per_sample; i++)
        sum += (p->u[i] - p->target[i]) * (p->u[i] - p->target[i]);
    return sum;
}

static double adaptive_loss(const void *problem) {
    const struct Adaptive *p = problem;
    double sum = 0.0;
    for (int64_t b = 0; b < p->batch; b++)
        sum += p->scale * squared_distance(p, b) / p->denominator[b];
    return sum;
}

static void test_adaptive_loss(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        int64_t batch = shapes[i].batch, n = shapes[i].n_per_sample;
        const double constant = 0.37, scale = 0.21;
        struct OpCase c;
        op_case_begin(&c, *state, "adaptive_loss %dx%d", (int)batch, (int)n);
        struct OpTensor *u = op_input(&c, "u", OP_F32, batch, n);
        struct OpTensor *target = op_input(&c, "target", OP_F32, batch, n);
        struct OpTensor *loss = op_output(&c, "loss", OP_F64, 1, batch);
        struct OpTensor *sq = op_output(&c, "sq", OP_F64, 1, batch);
        struct OpTensor *du = op_output(&c, "du", OP_F32, batch, n);
        c.be->adaptive_loss(c.be, op_f64(loss), op_f64(sq), op_f32(du), op_f32(u), op_f32(target),
                            constant, scale, batch, n);

        struct Adaptive p = {batch, n, u->values, target->values, op_array(&c, batch), scale};
        double *expected_sq = op_array(&c, batch), *expected_loss = op_array(&c, batch);
        for (int64_t b = 0; b < batch; b++) {
            expected_sq[b] = squared_distance(&p, b);
            p.denominator[b] = expected_sq[b] + constant;
            expected_loss[b] = expected_sq[b] / p.denominator[b];
        }
        op_check_values(&c, sq, expected_sq, op_tolerance(sq, n));
        op_check_values(&c, loss, expected_loss, op_tolerance(loss, n));
        double *expected = op_finite_differences(&c, p.u, u->n_elems, adaptive_loss, &p);
        op_check_gradient(&c, du, expected, op_tolerance(du, n));
        /* Planted: the derivative of sq / (sq + c) with its denominator, smaller by c / (sq + c).
         */
        double *wrong = op_array(&c, u->n_elems);
        for (int64_t k = 0; k < u->n_elems; k++)
            wrong[k] = expected[k] * constant / p.denominator[k / n];
        op_check_rejects(&c, du, expected, wrong, op_tolerance(du, n),
                         "denominator differentiated");
        op_case_end(&c);
    }
}

struct Vsd {
    int64_t batch, n_per_sample;
    struct OpTensor *x_hat, *eps, *v_fake, *v_teacher, *loss, *direction;
    const double *t;
    double *norm; /* [batch], constant */
};

/* Random inputs; near_teacher: x_hat is so near g_teacher that a norm's 1e-6 n matters. */
static struct Vsd vsd_inputs(struct OpCase *c, int64_t batch, int64_t n, bool near_teacher) {
    struct Vsd p = {.batch = batch, .n_per_sample = n};
    p.x_hat = op_input(c, "x_hat", OP_F32, batch, n);
    p.eps = op_input(c, "eps", OP_F32, batch, n);
    p.v_fake = op_input(c, "v_fake", OP_F32, batch, n);
    p.v_teacher = op_input(c, "v_teacher", OP_F32, batch, n);
    if (near_teacher) {
        op_rescale(c, p.x_hat, 1e-3, 0.0);
        op_rescale(c, p.eps, 1e-3, 0.0);
        op_rescale(c, p.v_teacher, 1e-3, 0.0);
    }
    p.loss = op_output(c, "loss", OP_F64, 1, batch);
    p.direction = op_output(c, "direction", OP_F32, batch, n);
    double *t = op_array(c, batch);
    for (int64_t b = 0; b < batch; b++) t[b] = b % 11 ? (double)(b % 11) / 10.0 : 0.001;
    p.t = t;
    p.norm = op_array(c, batch);
    return p;
}

static void vsd_direction(const struct OpCase *c, const struct Vsd *p, enum VsdNorm norm) {
    c->be->vsd_direction(c->be, op_f64(p->loss), op_f32(p->direction), op_f32(p->x_hat),
                         op_f32(p->eps), op_f32(p->v_fake), op_f32(p->v_teacher), p->t, norm,
                         p->batch, p->n_per_sample);
}

/* Denoised by the velocity v: g = x_hat_t - t v. */
static double vsd_denoised(const struct Vsd *p, const struct OpTensor *v, int64_t i) {
    double t = p->t[i / p->n_per_sample];
    return (1.0 - t) * p->x_hat->values[i] + t * p->eps->values[i] - t * v->values[i];
}

static double vsd_difference(const struct Vsd *p, int64_t i) {
    return vsd_denoised(p, p->v_fake, i) - vsd_denoised(p, p->v_teacher, i);
}

static void naive_vsd_norm(const struct Vsd *p, enum VsdNorm norm) {
    for (int64_t b = 0; b < p->batch; b++) {
        double sum = norm == VSD_NORM_DMD2 ? 1e-6 * (double)p->n_per_sample : 0.0;
        for (int64_t i = b * p->n_per_sample; i < (b + 1) * p->n_per_sample; i++)
            sum += fabs(norm == VSD_NORM_DMD2
                            ? p->x_hat->values[i] - vsd_denoised(p, p->v_teacher, i)
                            : vsd_difference(p, i));
        p->norm[b] = sum;
    }
}

/* G, and <G, x_hat> of each sample. */
static void naive_vsd(const struct Vsd *p, double *direction, double *loss) {
    for (int64_t i = 0; i < p->batch * p->n_per_sample; i++) {
        int64_t b = i / p->n_per_sample;
        direction[i] = p->norm[b] == 0.0 ? 0.0 : vsd_difference(p, i) / p->norm[b];
        loss[b] += direction[i] * p->x_hat->values[i];
    }
}

static void check_vsd_direction(void *suite, int64_t batch, int64_t n, enum VsdNorm norm) {
    struct OpCase c;
    op_case_begin(&c, suite, "vsd_direction %dx%d norm %d", (int)batch, (int)n, (int)norm);
    struct Vsd p = vsd_inputs(&c, batch, n, norm == VSD_NORM_DMD2);
    vsd_direction(&c, &p, norm);
    double *expected = op_array(&c, batch * n), *loss = op_array(&c, batch);
    naive_vsd_norm(&p, norm);
    naive_vsd(&p, expected, loss);
    op_check_values(&c, p.loss, loss, 4.0 * op_tolerance(p.loss, n));
    op_check_gradient(&c, p.direction, expected, op_tolerance(p.direction, n));
    double *wrong = op_array(&c, batch * n), *wrong_loss = op_array(&c, batch);
    naive_vsd_norm(&p, norm == VSD_NORM_DMD2 ? VSD_NORM_PAPER : VSD_NORM_DMD2);
    naive_vsd(&p, wrong, wrong_loss);
    op_check_rejects(&c, p.direction, expected, wrong, op_tolerance(p.direction, n),
                     "the other norm");
    op_case_end(&c);
}

static void test_vsd_direction(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        check_vsd_direction(*state, shapes[i].batch, shapes[i].n_per_sample, VSD_NORM_PAPER);
        check_vsd_direction(*state, shapes[i].batch, shapes[i].n_per_sample, VSD_NORM_DMD2);
    }
}

/* A fake score that equals the teacher's has no direction, nor has what was not renoised; the other
 * sample keeps its own. */
static void check_vsd_without_difference(void *suite, enum VsdNorm norm) {
    enum { BATCH = 3, N = 77 };
    struct OpCase c;
    op_case_begin(&c, suite, "vsd_direction without difference, norm %d", (int)norm);
    double t[BATCH] = {0.3, 0.4, 0.0};
    struct Vsd p = vsd_inputs(&c, BATCH, N, false);
    for (int64_t i = 0; i < N; i++) p.v_teacher->values[i] = p.v_fake->values[i];
    op_put(&c, p.v_teacher, p.v_teacher->values);
    p.t = t;
    vsd_direction(&c, &p, norm);
    double *expected = op_array(&c, BATCH * N), *loss = op_array(&c, BATCH);
    naive_vsd_norm(&p, norm);
    naive_vsd(&p, expected, loss);
    op_check_values(&c, p.direction, expected, op_tolerance(p.direction, N));
    op_check_values(&c, p.loss, loss, 4.0 * op_tolerance(p.loss, N));
    double *direction = op_download(&c, p.direction);
    for (int64_t i = 0; i < BATCH * N; i++) assert_true((direction[i] == 0.0) == (i / N != 1));
    op_case_end(&c);
}

static void test_vsd_without_difference(void **state) {
    check_vsd_without_difference(*state, VSD_NORM_PAPER);
    check_vsd_without_difference(*state, VSD_NORM_DMD2);
}

struct Softplus {
    int64_t batch, n_logits;
    double *x;
    double sign, scale;
};

static double softplus_sample_loss(const struct Softplus *p, int64_t sample) {
    double sum = 0.0;
    for (int64_t k = 0; k < p->n_logits; k++) {
        double z = p->sign * p->x[sample * p->n_logits + k];
        sum += fmax(z, 0.0) + log1p(exp(-fabs(z)));
    }
    return sum / (double)p->n_logits;
}

static double softplus_loss(const void *problem) {
    const struct Softplus *p = problem;
    double sum = 0.0;
    for (int64_t b = 0; b < p->batch; b++) sum += p->scale * softplus_sample_loss(p, b);
    return sum;
}

static void check_softplus(void *suite, int64_t batch, int64_t n, double sign, bool with_dx) {
    struct OpCase c;
    op_case_begin(&c, suite, "softplus_loss %dx%d sign %g%s", (int)batch, (int)n, sign,
                  with_dx ? "" : " without dx");
    struct OpTensor *x = op_input(&c, "x", OP_F32, batch, n);
    if (x->n_elems > 3) { /* exp(1000) overflows even float64 */
        x->values[1] = 1000.0, x->values[2] = -1000.0;
        op_put(&c, x, x->values);
    }
    struct OpTensor *loss = op_output(&c, "loss", OP_F64, 1, batch);
    struct OpTensor *dx = with_dx ? op_output(&c, "dx", OP_F32, batch, n) : NULL;
    const double scale = 0.3;
    c.be->softplus_loss(c.be, op_f64(loss), op_f32(dx), op_f32(x), sign, scale, batch, n);
    struct Softplus p = {batch, n, x->values, sign, scale};
    double *expected = op_array(&c, batch);
    for (int64_t b = 0; b < batch; b++) expected[b] = softplus_sample_loss(&p, b);
    op_check_values(&c, loss, expected, op_tolerance(loss, n));
    expected = op_finite_differences(&c, p.x, x->n_elems, softplus_loss, &p);
    if (dx) op_check_gradient(&c, dx, expected, op_tolerance(dx, 1));
    op_case_end(&c);
}

static void test_softplus_loss(void **state) {
    const int64_t sizes[][2] = {{1, 1}, {3, 1}, {5, 9}, {2, 129}};
    for (int i = 0; i < 4; i++) {
        check_softplus(*state, sizes[i][0], sizes[i][1], 1.0, true);
        check_softplus(*state, sizes[i][0], sizes[i][1], -1.0, true);
        check_softplus(*state, sizes[i][0], sizes[i][1], 1.0, false);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_squares_sum),   cmocka_unit_test(test_adaptive_loss),
        cmocka_unit_test(test_vsd_direction), cmocka_unit_test(test_vsd_without_difference),
        cmocka_unit_test(test_softplus_loss),
    };
    return op_run_tests("loss", tests, sizeof tests / sizeof *tests);
}
