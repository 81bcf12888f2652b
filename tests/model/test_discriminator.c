/* The discriminator of each type against a naive one in double: logits, every gradient against
 * finite differences along random directions, what backward may leave out, and whom it tells. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "discriminator_fixture.h"
#include "error.h"

enum { DIRECTIONS = 3 };

/* Norm-relative; float32 arithmetic gives about 1e-6. */
static const double TOLERANCE = 1e-4;

static void for_each_case(void (*check)(struct DiscriminatorFixture *f)) {
    for (int i = 0; i < n_discriminator_cases; i++) {
        struct DiscriminatorFixture *f = discriminator_fixture_create(&discriminator_cases[i]);
        check(f);
        discriminator_fixture_destroy(f);
    }
}

/* ---- logits ---- */

static void check_logits(struct DiscriminatorFixture *f) {
    for (int k = 0; k < NAIVE_HEADS; k++) {
        double expected[FIXTURE_BATCH];
        naive_discriminator_head(&f->naive, k, expected);
        for (int b = 0; b < FIXTURE_BATCH; b++) {
            double got = (double)f->logits[b * NAIVE_HEADS + k];
            if (!(fabs(got - expected[b]) <= 1e-5))
                fail_msg("%s: logit [%d, %d]: expected %.8g, got %.8g", f->of->name, b, k,
                         expected[b], got);
        }
    }
}

static void test_logits(void **state) {
    (void)state;
    for_each_case(check_logits);
}

/* ---- gradients along random directions ---- */

static double naive_loss(const struct DiscriminatorFixture *f, int head) {
    double logits[FIXTURE_BATCH], sum = 0.0;
    naive_discriminator_head(&f->naive, head, logits);
    for (int b = 0; b < FIXTURE_BATCH; b++)
        sum += (double)f->dlogits[b * NAIVE_HEADS + head] * logits[b];
    return sum;
}

/* Difference quotients of one head's naive loss by x. */
static void difference_slopes(const struct DiscriminatorFixture *f, int head, double *x,
                              int64_t n_elems, double slopes[DIRECTIONS]) {
    const double step = 1e-6;
    double *centre = xcalloc((unsigned long)n_elems * sizeof *centre);
    memcpy(centre, x, (size_t)n_elems * sizeof *x);
    for (uint64_t v = 0; v < DIRECTIONS; v++) {
        double ends[2];
        for (int end = 0; end < 2; end++) {
            for (int64_t i = 0; i < n_elems; i++)
                x[i] = centre[i] + (end ? step : -step) * fixture_uniform(1000 + v, i);
            ends[end] = naive_loss(f, head);
        }
        slopes[v] = (ends[1] - ends[0]) / (2.0 * step);
    }
    memcpy(x, centre, (size_t)n_elems * sizeof *x);
    free(centre);
}

/* Whether <gradient, direction> matches the slopes; NaN does not. */
static bool gradient_holds(const double slopes[DIRECTIONS], const float *gradient,
                           int64_t n_elems) {
    double errors = 0.0, squares = 0.0;
    for (uint64_t v = 0; v < DIRECTIONS; v++) {
        double product = 0.0;
        for (int64_t i = 0; i < n_elems; i++)
            product += (double)gradient[i] * fixture_uniform(1000 + v, i);
        errors += (product - slopes[v]) * (product - slopes[v]);
        squares += slopes[v] * slopes[v];
    }
    return sqrt(errors) <= TOLERANCE * sqrt(squares);
}

/* The last element that is no smaller than the root mean square (some are zero: kernel taps that
 * only ever meet padding). */
static int64_t last_typical(const float *gradient, int64_t n_elems) {
    double squares = 0.0;
    for (int64_t i = 0; i < n_elems; i++) squares += (double)gradient[i] * (double)gradient[i];
    int64_t last = n_elems - 1;
    while (last > 0 && fabs((double)gradient[last]) < sqrt(squares / (double)n_elems)) last--;
    return last;
}

/* Bugs planted into a gradient that was accepted must be rejected. */
static void check_gradient(struct DiscriminatorFixture *f, const char *name, int head, double *x,
                           const float *gradient, int64_t n_elems) {
    const char *of = f->of->name;
    double slopes[DIRECTIONS];
    difference_slopes(f, head, x, n_elems, slopes);
    if (!gradient_holds(slopes, gradient, n_elems)) fail_msg("%s: gradient of %s", of, name);

    float *wrong = xcalloc((unsigned long)n_elems * sizeof *wrong);
    for (int64_t i = 0; i < n_elems; i++) wrong[i] = 3.0f * gradient[i];
    if (gradient_holds(slopes, wrong, n_elems)) fail_msg("%s: accepted 3 x that of %s", of, name);
    memcpy(wrong, gradient, (size_t)n_elems * sizeof *wrong);
    wrong[last_typical(gradient, n_elems)] = 0.0f;
    if (gradient_holds(slopes, wrong, n_elems))
        fail_msg("%s: accepted %s without its end", of, name);
    for (int64_t i = 0; i < n_elems; i++) wrong[i] = gradient[(i + 1) % n_elems];
    if (n_elems > 1 && gradient_holds(slopes, wrong, n_elems))
        fail_msg("%s: accepted %s shifted by one", of, name);
    free(wrong);
}

static void check_gradients(struct DiscriminatorFixture *f) {
    discriminator_fixture_backward(f, true, false);
    for (int p = 0; p < f->table.n_params; p++) {
        const struct ParamDesc *desc = &f->table.params[p];
        check_gradient(f, desc->name, desc->unit, f->naive.params + desc->offset,
                       f->weights.grad + desc->offset, desc->n_elems);
    }
    for (int k = 0; k < NAIVE_HEADS; k++)
        check_gradient(f, "tap", k, f->naive.taps[k], f->dtaps[k], f->tap_elems);
}

static void test_gradients(void **state) {
    (void)state;
    for_each_case(check_gradients);
}

/* ---- what backward may leave out, and whom it tells ---- */

/* A second backward doubles them. */
static void check_accumulation(struct DiscriminatorFixture *f) {
    int64_t n_bytes = f->table.n_elems * (int64_t)sizeof(float);
    float *once = xcalloc((unsigned long)n_bytes);
    discriminator_fixture_backward(f, false, false);
    assert_true(isnan(f->dtaps[0][0]));
    memcpy(once, f->weights.grad, (size_t)n_bytes);
    discriminator_fixture_backward(f, true, false);
    double errors = 0.0, squares = 0.0;
    for (int64_t i = 0; i < f->table.n_elems; i++) {
        double error = (double)f->weights.grad[i] - 2.0 * (double)once[i];
        errors += error * error;
        squares += (double)once[i] * (double)once[i];
    }
    assert_true(squares > 0.0 && sqrt(errors) <= 1e-6 * sqrt(squares));
    free(once);
}

static void test_parameter_gradients_accumulate(void **state) {
    (void)state;
    for_each_case(check_accumulation);
}

/* Without parameter gradients the taps get the same bits, in their own place too; a tap that is not
 * wanted is let be. */
static void check_frozen(struct DiscriminatorFixture *f) {
    size_t n_bytes = (size_t)f->tap_elems * sizeof(float);
    float *expected = xcalloc(n_bytes);
    discriminator_fixture_backward(f, true, false);
    memcpy(expected, f->dtaps[1], n_bytes);
    memset(f->dtaps[1], 0xff, n_bytes);
    f->dtaps[0][5] = 42.0f;

    struct Weights frozen = weights_frozen_view(&f->weights);
    struct Discriminator d = {&frozen, f->of->model, f->of->config};
    Act *dtaps[NAIVE_HEADS] = {NULL, (Act *)f->dtaps[1]};
    discriminator_backward(&d, f->dlogits, &f->tape, dtaps, true, &f->arena);
    assert_memory_equal(f->dtaps[1], expected, n_bytes);
    assert_true(f->dtaps[0][5] == 42.0f);

    dtaps[1] = (Act *)f->taps[1]; /* in place */
    discriminator_backward(&d, f->dlogits, &f->tape, dtaps, true, &f->arena);
    assert_memory_equal(f->taps[1], expected, n_bytes);
    free(expected);
}

static void test_frozen(void **state) {
    (void)state;
    for_each_case(check_frozen);
}

struct Calls {
    char text[64];
};

static void log_call(struct Calls *calls, char what, int unit) {
    size_t n = strlen(calls->text);
    snprintf(calls->text + n, sizeof calls->text - n, "%c%d", what, unit);
}

static void on_acquire(void *context, int unit, bool backward) {
    log_call(context, backward ? 'b' : 'a', unit);
}

static void on_release(void *context, int unit) {
    log_call(context, 'r', unit);
}

static void on_grad_ready(void *context, int unit) {
    log_call(context, 'g', unit);
}

static void check_unit_hooks(struct DiscriminatorFixture *f) {
    struct Calls calls = {""};
    f->weights.hooks = (struct UnitHooks){.context = &calls,
                                          .acquire = on_acquire,
                                          .release = on_release,
                                          .grad_ready = on_grad_ready};
    discriminator_fixture_forward(f);
    assert_string_equal(calls.text, "a0r0a1r1");
    calls.text[0] = 0;
    discriminator_fixture_backward(f, false, false);
    assert_string_equal(calls.text, "b0r0b1r1");
    calls.text[0] = 0;
    discriminator_fixture_backward(f, false, true);
    assert_string_equal(calls.text, "b0r0g0b1r1g1");
}

static void test_unit_hooks(void **state) {
    (void)state;
    for_each_case(check_unit_hooks);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_parameter_gradients_accumulate),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_unit_hooks),
    };
    return cmocka_run_group_tests_name("discriminator", tests, NULL, NULL);
}
