/* What is not a number stays not a number, and spoils nothing else: that a step with a non-finite
 * loss or gradient is skipped relies on it.  Vectorised exponentials and maxima like to lose a NaN.
 */
#include <math.h>

#include "op_check.h"

enum { ROWS = 5, DIM = 24, N = ROWS * DIM, BAD = 2 * DIM + 7 };

/* An input [ROWS, DIM] with a NaN at BAD. */
static struct OpTensor *spoiled_input(struct OpCase *c, const char *name, enum OpKind kind) {
    struct OpTensor *x = op_input(c, name, kind, ROWS, DIM);
    x->values[BAD] = NAN;
    op_put(c, x, x->values);
    return x;
}

/* [ROWS, DIM] with NaN in elements [first, end). */
static double *spoiled(struct OpCase *c, int64_t first, int64_t end) {
    double *expected = op_array(c, N);
    for (int64_t i = first; i < end; i++) expected[i] = NAN;
    return expected;
}

static double *spoiled_row(struct OpCase *c) {
    return spoiled(c, BAD / DIM * DIM, (BAD / DIM + 1) * DIM);
}

static void test_linear(void **state) {
    const struct LinearShape shape = {ROWS, DIM, DIM};
    struct OpCase c;
    op_case_begin(&c, *state, "NaN in linear_gelu");
    struct OpTensor *x = spoiled_input(&c, "x", OP_ACT);
    struct OpTensor *w = op_input(&c, "w", OP_ACT, DIM, DIM);
    struct OpTensor *b = op_input(&c, "b", OP_ACT, 1, DIM);
    struct OpTensor *dy = op_input(&c, "dy", OP_ACT, ROWS, DIM);
    struct OpTensor *y = op_output(&c, "y", OP_ACT, ROWS, DIM);
    struct OpTensor *pre = op_output(&c, "pre", OP_ACT, ROWS, DIM);
    struct OpTensor *dpre = op_output(&c, "dpre", OP_ACT, ROWS, DIM);
    c.be->linear_gelu_forward(c.be, op_act(y), op_act(pre), op_act(x), op_act(w), op_act(b), shape);
    c.be->linear_gelu_backward_input(c.be, op_act(dpre), op_act(dy), op_act(w), op_act(x), shape);
    op_check_nans(&c, pre, spoiled_row(&c));
    op_check_nans(&c, y, spoiled_row(&c));
    op_check_nans(&c, dpre, spoiled(&c, BAD, BAD + 1)); /* x taken for the pre-activations */
    op_case_end(&c);
}

static void test_silu(void **state) {
    struct OpCase c;
    op_case_begin(&c, *state, "NaN in silu");
    struct OpTensor *x = spoiled_input(&c, "x", OP_F32),
                    *dy = op_input(&c, "dy", OP_F32, ROWS, DIM);
    struct OpTensor *y = op_output(&c, "y", OP_F32, ROWS, DIM);
    struct OpTensor *dx = op_output(&c, "dx", OP_F32, ROWS, DIM);
    c.be->silu_forward(c.be, op_f32(y), op_f32(x), N);
    c.be->silu_backward(c.be, op_f32(dx), op_f32(dy), op_f32(x), N, false);
    op_check_nans(&c, y, spoiled(&c, BAD, BAD + 1));
    op_check_nans(&c, dx, spoiled(&c, BAD, BAD + 1));
    op_case_end(&c);
}

static void test_norms(void **state) {
    const struct NormShape norm = {.batch = 1, .tokens = ROWS, .dim = DIM, .one = 1, .eps = 1e-6f};
    const struct QkNormShape qk_norm = {1, ROWS, DIM, 2, DIM, 1e-6f};
    struct OpCase c;
    op_case_begin(&c, *state, "NaN in norms");
    struct OpTensor *x = spoiled_input(&c, "x", OP_ACT), *w = op_input(&c, "w", OP_F32, 1, DIM);
    struct OpTensor *y = op_output(&c, "y", OP_ACT, ROWS, DIM);
    struct OpTensor *z = op_output(&c, "z", OP_ACT, ROWS, DIM);
    struct OpTensor *mean = op_output(&c, "mean", OP_F32, ROWS, 1);
    struct OpTensor *rstd = op_output(&c, "rstd", OP_F32, ROWS, 1);
    struct OpTensor *qk_rstd = op_output(&c, "qk_rstd", OP_F32, ROWS, 1);
    c.be->layer_norm_forward(c.be, op_act(y), op_f32(mean), op_f32(rstd), op_act(x), op_f32(w),
                             op_f32(w), norm);
    c.be->qk_norm_forward(c.be, op_act(z), op_f32(qk_rstd), op_act(x), op_f32(w), NULL, qk_norm);
    const double statistics[ROWS] = {[BAD / DIM] = (double)NAN};
    op_check_nans(&c, y, spoiled_row(&c));
    op_check_nans(&c, z, spoiled_row(&c));
    op_check_nans(&c, mean, statistics);
    op_check_nans(&c, rstd, statistics);
    op_check_nans(&c, qk_rstd, statistics);
    op_case_end(&c);
}

/* q, k, v [ROWS tokens, 2 heads, DIM / 2]; which: 0, 1 or 2, the one with the NaN. */
static void check_attention(void *suite, int which) {
    enum { HEAD_DIM = DIM / 2, HEAD = BAD % DIM / HEAD_DIM };
    const struct AttentionShape shape = {1, 2, HEAD_DIM, ROWS, ROWS, DIM, DIM, DIM, DIM};
    const char *names[3] = {"q", "k", "v"};
    struct OpTensor *in[3];
    struct OpCase c;
    op_case_begin(&c, suite, "NaN in %s", names[which]);
    for (int i = 0; i < 3; i++)
        in[i] = i == which ? spoiled_input(&c, names[i], OP_ACT)
                           : op_input(&c, names[i], OP_ACT, ROWS, DIM);
    struct OpTensor *o = op_output(&c, "o", OP_ACT, ROWS, DIM);
    struct OpTensor *lse = op_output(&c, "lse", OP_F32, 2, ROWS);
    c.be->attention_forward(c.be, op_act(o), op_f32(lse), op_act(in[0]), op_act(in[1]),
                            op_act(in[2]), shape);
    /* A query spoils its own row, a key all rows, a value all rows of its column. */
    double *expected = op_array(&c, N), *expected_lse = op_array(&c, 2 * ROWS);
    for (int i = 0; i < N; i++) {
        int row = i / DIM, column = i % DIM;
        bool hit = column / HEAD_DIM == HEAD && (which != 0 || row == BAD / DIM);
        if (hit && which < 2) expected_lse[HEAD * ROWS + row] = NAN;
        if (which == 2) hit = column == BAD % DIM;
        if (hit) expected[i] = NAN;
    }
    op_check_nans(&c, o, expected);
    op_check_nans(&c, lse, expected_lse);
    op_case_end(&c);
}

static void test_attention(void **state) {
    for (int which = 0; which < 3; which++) check_attention(*state, which);
}

/* One sample per row: only the spoiled one's loss and gradient are lost. */
static void test_losses(void **state) {
    struct OpCase c;
    op_case_begin(&c, *state, "NaN in losses");
    struct OpTensor *x = spoiled_input(&c, "x", OP_F32);
    struct OpTensor *target = op_input(&c, "target", OP_F32, ROWS, DIM);
    struct OpTensor *squares = op_output(&c, "squares", OP_F64, ROWS, 1);
    struct OpTensor *adaptive = op_output(&c, "adaptive", OP_F64, ROWS, 1);
    struct OpTensor *sq = op_output(&c, "sq", OP_F64, ROWS, 1);
    struct OpTensor *du = op_output(&c, "du", OP_F32, ROWS, DIM);
    struct OpTensor *vsd = op_output(&c, "vsd", OP_F64, ROWS, 1);
    struct OpTensor *direction = op_output(&c, "direction", OP_F32, ROWS, DIM);
    struct OpTensor *softplus = op_output(&c, "softplus", OP_F64, ROWS, 1);
    struct OpTensor *norm = op_output(&c, "norm", OP_F64, 1, 1);
    c.be->squares_sum(c.be, op_f64(squares), op_f32(x), ROWS, DIM);
    c.be->adaptive_loss(c.be, op_f64(adaptive), op_f64(sq), op_f32(du), op_f32(x), op_f32(target),
                        0.1, 1.0, ROWS, DIM);
    const double t[ROWS] = {0.1, 0.3, 0.5, 0.7, 0.0};
    c.be->vsd_direction(c.be, op_f64(vsd), op_f32(direction), op_f32(target), op_f32(target),
                        op_f32(x), op_f32(target), t, VSD_NORM_PAPER, ROWS, DIM);
    c.be->softplus_loss(c.be, op_f64(softplus), NULL, op_f32(x), 1.0, 1.0, ROWS, DIM);
    c.be->norm_squared(c.be, op_f64(norm), op_f32(x), N);
    const double samples[ROWS] = {[BAD / DIM] = (double)NAN}, all = (double)NAN;
    op_check_nans(&c, squares, samples);
    op_check_nans(&c, adaptive, samples);
    op_check_nans(&c, sq, samples);
    op_check_nans(&c, du, spoiled_row(&c));
    op_check_nans(&c, vsd, samples);
    op_check_nans(&c, direction, spoiled_row(&c));
    op_check_nans(&c, softplus, samples);
    op_check_nans(&c, norm, &all);
    op_case_end(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear), cmocka_unit_test(test_silu),
        cmocka_unit_test(test_norms),  cmocka_unit_test(test_attention),
        cmocka_unit_test(test_losses),
    };
    return op_run_tests("nan", tests, sizeof tests / sizeof *tests);
}
