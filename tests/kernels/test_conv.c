/* 3D convolution against its definition in double, whose gradients are held against finite
 * differences. */
#include "naive_conv.h"
#include "op_check.h"

/* Channel counts on both sides of the 16 that kernels like and of a tile of 64, sizes that the
 * strides do not divide, kernels that reach over the whole input, unequal paddings, the
 * discriminator's own; and neighbours that differ in one number only, which must not share a plan.
 */
static const struct ConvShape shapes[] = {
    {1, 1, 1, {3, 3, 3}, {3, 3, 3}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {2, 3, 5, {3, 6, 7}, {3, 3, 3}, {3, 4, 4}, {1, 2, 2}, {1, 1, 1}},
    {3, 2, 4, {4, 5, 9}, {2, 2, 4}, {3, 4, 4}, {2, 2, 2}, {1, 1, 1}},
    {1, 2, 4, {4, 5, 9}, {2, 2, 4}, {3, 4, 4}, {2, 2, 2}, {1, 1, 1}},
    {2, 5, 3, {5, 6, 4}, {3, 3, 2}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
    {2, 5, 3, {6, 6, 4}, {3, 3, 2}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
    {3, 4, 2, {1, 1, 2}, {1, 1, 1}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
    {2, 2, 3, {2, 5, 4}, {2, 2, 2}, {1, 3, 2}, {1, 2, 2}, {0, 0, 0}},
    {2, 5, 18, {3, 7, 6}, {3, 3, 3}, {1, 4, 4}, {1, 2, 2}, {0, 1, 1}},
    {2, 18, 18, {5, 3, 2}, {3, 3, 2}, {3, 1, 1}, {2, 1, 1}, {1, 0, 0}},
    {1, 3, 2, {4, 4, 5}, {6, 1, 2}, {3, 3, 4}, {1, 4, 2}, {2, 0, 1}},
    {1, 3, 2, {4, 4, 5}, {6, 1, 2}, {3, 3, 4}, {1, 4, 2}, {2, 1, 1}},
    {1, 17, 16, {3, 5, 6}, {3, 2, 3}, {3, 4, 4}, {1, 2, 2}, {1, 1, 1}},
    {1, 70, 66, {1, 4, 4}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}},
    {2, 16, 33, {2, 4, 6}, {1, 2, 3}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
    {5, 6, 16, {4, 8, 8}, {4, 4, 4}, {3, 4, 4}, {1, 2, 2}, {1, 1, 1}},
    {4, 32, 32, {2, 4, 4}, {1, 2, 2}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
    {8, 32, 16, {1, 2, 2}, {1, 1, 1}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };
/* Above that many elements, finite differences take too long. */
enum { MAX_DIFFERENCES = 1000 };

struct ConvCase {
    struct OpCase c;
    const struct ConvShape *shape;
    struct OpTensor *x, *w, *b, *dy;
    double *y; /* room for the naive forward */
};

/* Rows of x and y are planes of one channel, rows of w are output channels. */
static void conv_begin(struct ConvCase *p, void *suite, const char *what,
                       const struct ConvShape *s) {
    op_case_begin(&p->c, suite, "%s %d -> %d channels, batch %d, %dx%dx%d", what,
                  (int)s->in_channels, (int)s->out_channels, (int)s->batch, (int)s->in[0],
                  (int)s->in[1], (int)s->in[2]);
    int64_t in_planes = s->batch * s->in_channels, out_planes = s->batch * s->out_channels;
    p->shape = s;
    p->x = op_input(&p->c, "x", OP_ACT, in_planes, naive_conv_x_elems(s) / in_planes);
    p->w = op_input(&p->c, "w", OP_ACT, s->out_channels, naive_conv_w_elems(s) / s->out_channels);
    p->b = op_input(&p->c, "b", OP_ACT, 1, s->out_channels);
    p->dy = op_input(&p->c, "dy", OP_ACT, out_planes, naive_conv_y_elems(s) / out_planes);
    p->y = op_array(&p->c, p->dy->n_elems);
}

static double conv_loss(const void *problem) {
    const struct ConvCase *p = problem;
    naive_conv_forward(p->y, p->x->values, p->w->values, p->b->values, p->shape);
    return op_dot(p->y, p->dy->values, p->dy->n_elems);
}

static void check_against_differences(struct ConvCase *p, const char *what,
                                      const struct OpTensor *input, const double *gradient) {
    if (p->x->n_elems > MAX_DIFFERENCES || p->w->n_elems > MAX_DIFFERENCES) return;
    const double *differences =
        op_finite_differences(&p->c, input->values, input->n_elems, conv_loss, p);
    op_check_references(&p->c, what, differences, gradient, input->n_elems);
}

static int64_t kernel_volume(const struct ConvShape *s) {
    return s->kernel[0] * s->kernel[1] * s->kernel[2];
}

/* Twice with each shape and other numbers: the second call finds its plan prepared. */
static void test_forward(void **state) {
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        const struct ConvShape *s = &shapes[i % N_SHAPES];
        struct ConvCase p;
        conv_begin(&p, *state, i < N_SHAPES ? "conv3d_forward" : "conv3d_forward again", s);
        struct OpTensor *y = op_output(&p.c, "y", OP_ACT, p.dy->rows, p.dy->cols);
        p.c.be->conv3d_forward(p.c.be, op_act(y), op_act(p.x), op_act(p.w), op_act(p.b), s);
        naive_conv_forward(p.y, p.x->values, p.w->values, p.b->values, s);
        op_check_values(&p.c, y, p.y, op_tolerance(y, s->in_channels * kernel_volume(s)));
        op_case_end(&p.c);
    }
}

static void test_backward_input(void **state) {
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        const struct ConvShape *s = &shapes[i % N_SHAPES];
        struct ConvCase p;
        conv_begin(&p, *state,
                   i < N_SHAPES ? "conv3d_backward_input" : "conv3d_backward_input again", s);
        struct OpTensor *dx = op_output(&p.c, "dx", OP_ACT, p.x->rows, p.x->cols);
        p.c.be->conv3d_backward_input(p.c.be, op_act(dx), op_act(p.dy), op_act(p.w), s);
        double *expected = op_array(&p.c, dx->n_elems);
        naive_conv_backward(expected, NULL, NULL, p.dy->values, p.x->values, p.w->values, s);
        check_against_differences(&p, "dx", p.x, expected);
        op_check_gradient(&p.c, dx, expected, op_tolerance(dx, s->out_channels * kernel_volume(s)));
        op_case_end(&p.c);
    }
}

/* What a convolution with a mirrored kernel, as textbooks define it, would give. */
static double *mirrored(struct OpCase *c, const double *dw, const struct ConvShape *s) {
    int64_t n_elems = naive_conv_w_elems(s), taps = kernel_volume(s);
    double *wrong = op_array(c, n_elems);
    for (int64_t i = 0; i < n_elems; i++) wrong[i] = dw[i / taps * taps + taps - 1 - i % taps];
    return wrong;
}

static void check_backward_params(void *suite, const char *what, const struct ConvShape *s,
                                  bool want_dw, bool want_db) {
    struct ConvCase p;
    conv_begin(&p, suite, what, s);
    struct OpTensor *dw = NULL, *db = NULL;
    if (want_dw) dw = op_accumulator(&p.c, "dw", OP_F32, p.w->rows, p.w->cols);
    if (want_db) db = op_accumulator(&p.c, "db", OP_F32, 1, s->out_channels);
    p.c.be->conv3d_backward_params(p.c.be, op_f32(dw), op_f32(db), op_act(p.x), op_act(p.dy), s);

    double *expected_dw = op_array(&p.c, p.w->n_elems), *expected_db = op_array(&p.c, p.b->n_elems);
    naive_conv_backward(NULL, expected_dw, expected_db, p.dy->values, p.x->values, p.w->values, s);
    int64_t reduction = s->batch * p.dy->cols;
    if (want_dw) {
        /* a library may give the sum, which is added to dw, in the type of w */
        double tolerance = op_tolerance(p.w, reduction);
        check_against_differences(&p, "dw", p.w, expected_dw);
        op_check_gradient(&p.c, dw, expected_dw, tolerance);
        op_check_rejects(&p.c, dw, expected_dw, mirrored(&p.c, expected_dw, s), tolerance,
                         "mirrored kernel");
    }
    if (want_db) {
        check_against_differences(&p, "db", p.b, expected_db);
        op_check_gradient(&p.c, db, expected_db, op_tolerance(db, reduction));
    }
    op_case_end(&p.c);
}

static void test_backward_params(void **state) {
    for (int i = 0; i < N_SHAPES; i++) {
        check_backward_params(*state, "conv3d_backward_params", &shapes[i], true, true);
        check_backward_params(*state, "conv3d_backward_params, no db,", &shapes[i], true, false);
        check_backward_params(*state, "conv3d_backward_params, no dw,", &shapes[i], false, true);
        check_backward_params(*state, "conv3d_backward_params, neither,", &shapes[i], false, false);
    }
}

/* The same input gives the same bits. */
static void test_repeats_exactly(void **state) {
    const struct ConvShape *s = &shapes[N_SHAPES - 2];
    struct ConvCase p;
    conv_begin(&p, *state, "conv3d twice", s);
    struct OpTensor *first = op_accumulator(&p.c, "dw", OP_F32, p.w->rows, p.w->cols);
    struct OpTensor *second = op_accumulator(&p.c, "dw again", OP_F32, p.w->rows, p.w->cols);
    op_put(&p.c, second, first->values);
    p.c.be->conv3d_backward_params(p.c.be, op_f32(first), NULL, op_act(p.x), op_act(p.dy), s);
    p.c.be->conv3d_backward_params(p.c.be, op_f32(second), NULL, op_act(p.x), op_act(p.dy), s);
    op_check_exact(&p.c, second, op_download(&p.c, first));
    op_check_exact(&p.c, first, op_download(&p.c, second));
    op_case_end(&p.c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward_input),
        cmocka_unit_test(test_backward_params),
        cmocka_unit_test(test_repeats_exactly),
    };
    return op_run_tests("conv", tests, sizeof tests / sizeof *tests);
}
