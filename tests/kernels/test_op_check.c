/* The harness itself: small suites, run in a child, that do what a broken operation would do.  Each
 * must fail, and the one that does all right must pass. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "op_check.h"

enum { ROWS = 3, COLS = 5, STRIDE = 8, N = ROWS * COLS };

/* One case with an input, a strided output and an accumulator, filled as they should be. */
struct Sample {
    struct OpCase c;
    struct OpTensor *x, *y, *dw;
    double *twice;
};

static void sample_begin(struct Sample *s, void *suite) {
    op_case_begin(&s->c, suite, "sample");
    s->x = op_input(&s->c, "x", OP_F32, ROWS, COLS);
    s->y = op_strided(&s->c, OP_OVERWRITTEN, "y", OP_F32, ROWS, COLS, STRIDE, 2);
    s->dw = op_accumulator(&s->c, "dw", OP_F32, ROWS, COLS);
    s->twice = op_array(&s->c, N);
    for (int i = 0; i < N; i++) s->twice[i] = 2.0 * s->x->values[i];
}

static void put_float(struct Sample *s, float *device, double value) {
    float single = (float)value;
    s->c.be->upload(s->c.be, device, &single, sizeof single);
}

static void fill(struct Sample *s) {
    for (int i = 0; i < N; i++) {
        put_float(s, op_f32(s->y) + i / COLS * STRIDE + i % COLS, s->twice[i]);
        put_float(s, op_f32(s->dw) + i, s->dw->values[i] + s->twice[i]);
    }
}

static void compare(struct Sample *s) {
    op_check_gradient(&s->c, s->y, s->twice, op_tolerance(s->y, 1));
    op_check_gradient(&s->c, s->dw, s->twice, op_tolerance(s->dw, 1));
    op_case_end(&s->c);
}

static void do_right(void **state) {
    struct Sample s;
    sample_begin(&s, *state);
    fill(&s);
    compare(&s);
}

#define BROKEN(name, harm)                                                                         \
    static void name(void **state) {                                                               \
        struct Sample s;                                                                           \
        sample_begin(&s, *state);                                                                  \
        fill(&s);                                                                                  \
        harm;                                                                                      \
        compare(&s);                                                                               \
    }

BROKEN(write_before, put_float(&s, op_f32(s.dw) - 1, 0.0))
BROKEN(write_behind, put_float(&s, op_f32(s.dw) + N, 0.0))
BROKEN(write_into_gap, put_float(&s, op_f32(s.y) + COLS, 0.0))
BROKEN(write_behind_input, put_float(&s, op_f32(s.x) + N, 0.0))
BROKEN(write_input, put_float(&s, op_f32(s.x) + 4, 7.0))
BROKEN(miss_last, put_float(&s, op_f32(s.dw) + N - 1, s.dw->values[N - 1]))
BROKEN(leave_poison, put_float(&s, op_f32(s.y) + 1, (double)NAN))
BROKEN(make_infinity, put_float(&s, op_f32(s.y) + 1, (double)INFINITY))
BROKEN(overwrite_accumulator,
       for (int i = 0; i < N; i++) put_float(&s, op_f32(s.dw) + i, s.twice[i]))
BROKEN(be_slightly_off, put_float(&s, op_f32(s.y), s.twice[0] + 1e-4))

static void compare_one_only(void **state) {
    struct Sample s;
    sample_begin(&s, *state);
    fill(&s);
    op_check_values(&s.c, s.y, s.twice, op_tolerance(s.y, 1));
    op_case_end(&s.c);
}

static void compare_no_elements(void **state) {
    struct OpCase c;
    op_case_begin(&c, *state, "empty");
    struct OpTensor *y = op_output(&c, "y", OP_F32, 0, COLS);
    op_check_values(&c, y, op_array(&c, 1), 1.0);
    op_case_end(&c);
}

/* What should vanish does, but a gradient comparison of it could see no bug. */
static void compare_gradient_of_zeros(void **state) {
    struct OpCase c;
    op_case_begin(&c, *state, "zeros");
    struct OpTensor *y = op_output(&c, "y", OP_F32, 1, COLS);
    c.be->zero(c.be, op_f32(y), COLS * sizeof(float));
    op_check_gradient(&c, y, op_array(&c, COLS), 1e-3);
    op_case_end(&c);
}

static void compare_nothing(void **state) {
    (void)state;
}

/* The exit code of a suite of that one test. */
static int run_alone(CMUnitTestFunction function) {
    const struct CMUnitTest test = {"alone", function, NULL, NULL, NULL};
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDOUT_FILENO);
        dup2(nowhere, STDERR_FILENO);
        _exit(op_run_tests("alone", &test, 1));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_accepts_what_is_right(void **state) {
    (void)state;
    assert_int_equal(run_alone(do_right), 0);
}

static void test_rejects_what_is_broken(void **state) {
    (void)state;
    const CMUnitTestFunction broken[] = {
        write_before,
        write_behind,
        write_into_gap,
        write_behind_input,
        write_input,
        miss_last,
        leave_poison,
        make_infinity,
        be_slightly_off,
        overwrite_accumulator,
        compare_one_only,
        compare_no_elements,
        compare_gradient_of_zeros,
        compare_nothing,
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        if (run_alone(broken[i]) == 0) fail_msg("the harness accepts broken operation %zu", i);
}

static void test_verdict(void **state) {
    (void)state;
    const double expected[] = {1.0, -1.0, 0.0}, nan_at_end[] = {1.0, -1.0, NAN};
    const double near[] = {1.0 + 1e-4, -1.0, 0.0}, zeros[3] = {0.0}, one_off[] = {1.0, -1.0, 0.1};
    assert_true(op_close(expected, expected, 3, 0.0, 0.0));
    assert_true(op_close(expected, near, 3, 1e-4, 0.0));
    assert_false(op_close(expected, near, 3, 1e-5, 0.0));
    assert_true(op_close(expected, near, 3, 0.0, 1e-4));
    assert_false(op_close(expected, nan_at_end, 3, 1e9, 1e9));
    assert_false(op_close(nan_at_end, expected, 3, 1e9, 1e9));
    assert_false(op_close(expected, one_off, 3, 0.01, 0.0));
    assert_false(op_close(expected, expected, 0, 1.0, 1.0));
    assert_true(op_close(zeros, zeros, 3, 1e-5, 0.0));
    assert_false(op_close(zeros, near, 3, 1e-5, 0.0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdict),
        cmocka_unit_test(test_accepts_what_is_right),
        cmocka_unit_test(test_rejects_what_is_broken),
    };
    return cmocka_run_group_tests_name("op_check", tests, NULL, NULL);
}
