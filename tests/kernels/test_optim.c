/* The optimizer's passes against naive versions in double.  What an update changes is compared, not
 * what it leaves: the tensors are OP_UPDATED, and the change is small beside the weights. */
#include <math.h>

#include "op_check.h"

static const int64_t lengths[] = {1, 5, 77, 129, 1031, 300007};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

static void test_norm_squared(void **state) {
    for (int i = 0; i < N_LENGTHS; i++) {
        int64_t n = lengths[i];
        struct OpCase c;
        op_case_begin(&c, *state, "norm_squared n %d", (int)n);
        struct OpTensor *x = op_input(&c, "x", OP_F32, 1, n);
        struct OpTensor *out = op_output(&c, "out", OP_F64, 1, 1);
        struct OpTensor *again = op_output(&c, "again", OP_F64, 1, 1);
        c.be->norm_squared(c.be, op_f64(out), op_f32(x), n);
        c.be->norm_squared(c.be, op_f64(again), op_f32(x), n);
        double expected = op_dot(x->values, x->values, n);
        op_check_values(&c, out, &expected, op_tolerance(out, 1)); /* summed in float64 */
        op_check_exact(&c, again, op_download(&c, out));
        op_case_end(&c);
    }
}

struct AdamTensors {
    struct OpTensor *w, *m, *v, *g;
};

/* By how much w, m and v change. */
struct AdamChange {
    double *w, *m, *v;
};

static struct AdamChange naive_adamw(struct OpCase *c, const struct AdamTensors *t,
                                     struct AdamW how) {
    int64_t n = t->w->n_elems;
    struct AdamChange d = {op_array(c, n), op_array(c, n), op_array(c, n)};
    for (int64_t i = 0; i < n; i++) {
        double w = t->w->values[i], m = t->m->values[i], v = t->v->values[i];
        double g = t->g->values[i] * how.grad_scale;
        double new_m = how.beta1 * m + (1.0 - how.beta1) * g;
        double new_v = how.beta2 * v + (1.0 - how.beta2) * g * g;
        double m_hat = new_m / (1.0 - pow(how.beta1, (double)how.step));
        double v_hat = new_v / (1.0 - pow(how.beta2, (double)how.step));
        d.w[i] = -how.lr * how.weight_decay * w - how.lr * m_hat / (sqrt(v_hat) + how.eps);
        d.m[i] = new_m - m;
        d.v[i] = new_v - v;
    }
    return d;
}

/* v is a mean of squares.  Where everything is zero, as in the gaps of a flat buffer, it must stay.
 */
static struct AdamTensors adam_tensors(struct OpCase *c, int64_t n) {
    struct AdamTensors t = {op_accumulator(c, "w", OP_F32, 1, n),
                            op_accumulator(c, "m", OP_F32, 1, n),
                            op_accumulator(c, "v", OP_F32, 1, n), op_input(c, "g", OP_F32, 1, n)};
    for (int64_t i = 0; i < n; i++) t.v->values[i] *= t.v->values[i];
    if (n > 5) t.w->values[3] = t.m->values[3] = t.v->values[3] = t.g->values[3] = 0.0;
    op_put(c, t.w, t.w->values);
    op_put(c, t.m, t.m->values);
    op_put(c, t.v, t.v->values);
    op_put(c, t.g, t.g->values);
    return t;
}

static void check_adamw(void *suite, int64_t n, struct AdamW how, bool in_place) {
    struct OpCase c;
    op_case_begin(&c, suite, "adamw n %d step %d decay %g%s", (int)n, (int)how.step,
                  how.weight_decay, in_place ? " in place" : "");
    struct AdamTensors t = adam_tensors(&c, n);
    struct OpTensor *compute = in_place ? NULL : op_output(&c, "compute", OP_ACT, 1, n);
    Act *compute_at = in_place ? (Act *)op_f32(t.w) : op_act(compute);
    c.be->adamw(c.be, op_f32(t.w), compute_at, op_f32(t.m), op_f32(t.v), op_f32(t.g), how, n);
    struct AdamChange expected = naive_adamw(&c, &t, how);
    op_check_gradient(&c, t.w, expected.w, 2.0 * op_tolerance(t.w, 1));
    op_check_gradient(&c, t.m, expected.m, 2.0 * op_tolerance(t.m, 1));
    op_check_gradient(&c, t.v, expected.v, 2.0 * op_tolerance(t.v, 1));
    if (compute) op_check_exact(&c, compute, op_download(&c, t.w));
    op_case_end(&c);
}

static void test_adamw(void **state) {
    const struct AdamW hows[] = {
        {.lr = 0.05, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .grad_scale = 1.0, .step = 1},
        {.lr = 0.02,
         .beta1 = 0.0,
         .beta2 = 0.99,
         .eps = 0.1,
         .weight_decay = 0.5,
         .grad_scale = 0.3,
         .step = 7},
        {.lr = 0.03,
         .beta1 = 0.5,
         .beta2 = 0.95,
         .eps = 1e-6,
         .weight_decay = 0.1,
         .grad_scale = 2.0,
         .step = 100000},
    };
    for (int i = 0; i < N_LENGTHS - 1; i++) {
        for (int k = 0; k < 3; k++) {
            check_adamw(*state, lengths[i], hows[k], false);
            struct OpSuite *suite = *state;
            if (suite->be->act_dtype == DTYPE_F32) check_adamw(suite, lengths[i], hows[k], true);
        }
    }
}

static void test_ema_update(void **state) {
    const double decays[] = {0.0, 0.5, 0.99};
    for (int i = 0; i < 3 * N_LENGTHS; i++) {
        int64_t n = lengths[i / 3];
        double decay = decays[i % 3];
        struct OpCase c;
        op_case_begin(&c, *state, "ema_update n %d decay %g", (int)n, decay);
        struct OpTensor *ema = op_accumulator(&c, "ema", OP_F32, 1, n);
        struct OpTensor *w = op_input(&c, "w", OP_F32, 1, n);
        c.be->ema_update(c.be, op_f32(ema), op_f32(w), decay, n);
        double *expected = op_array(&c, n);
        for (int64_t k = 0; k < n; k++)
            expected[k] = (1.0 - decay) * (w->values[k] - ema->values[k]);
        op_check_gradient(&c, ema, expected, op_tolerance(ema, 1));
        op_case_end(&c);
    }
}

static void test_scale_and_cast(void **state) {
    for (int i = 0; i < N_LENGTHS; i++) {
        int64_t n = lengths[i];
        struct OpCase c;
        op_case_begin(&c, *state, "scale_f32 and weights_cast n %d", (int)n);
        struct OpTensor *x = op_accumulator(&c, "x", OP_F32, 1, n);
        struct OpTensor *w = op_input(&c, "w", OP_F32, 1, n);
        struct OpTensor *compute = op_output(&c, "compute", OP_ACT, 1, n);
        c.be->scale_f32(c.be, op_f32(x), -0.37, n);
        c.be->weights_cast(c.be, op_act(compute), op_f32(w), n);
        double *expected = op_array(&c, n);
        for (int64_t k = 0; k < n; k++) expected[k] = -0.37 * x->values[k];
        op_check_values(&c, x, expected, op_tolerance(x, 1));
        op_check_exact(&c, compute, w->values);
        op_case_end(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm_squared),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_ema_update),
        cmocka_unit_test(test_scale_and_cast),
    };
    return op_run_tests("optim", tests, sizeof tests / sizeof *tests);
}
