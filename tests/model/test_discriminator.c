/* The discriminator against a naive one in double: names, sizes, logits, and every gradient against
 * finite differences along random directions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../kernels/naive_conv.h"
#include "error.h"
#include "model/discriminator.h"
#include "philox.h"

enum { BATCH = 2, N_HEADS = 2, CONV_PARAMS = 4, HEAD_PARAMS = 20, DIRECTIONS = 3 };

/* Channels below 4, up to 32 and beyond (36: 18 groups); odd latents. */
static const struct ModelConfig model = {.dim = 36, .patch_size = {1, 2, 2}};
static const struct DiscriminatorConfig config = {
    .features = {.items = {1, 2}, .n = N_HEADS}, .channels = {8, 36, 16}, .mlp_dim = 7};
static const struct VideoShape latents = {.frames = 3, .height = 13, .width = 12};
enum { TAP_ELEMS = BATCH * 9 * 3 * 13 * 12 };

/* Norm-relative; float32 arithmetic gives about 1e-6. */
static const double TOLERANCE = 1e-4;

static double uniform(uint64_t seed, int64_t i) {
    return 2.0 * philox_uniform(philox(seed, (uint32_t)i, 0, 0, 0).word[0]) - 1.0;
}

/* ---- the naive discriminator */

struct Naive {
    const struct ParamTable *table;
    double *params; /* laid out as the table says */
    double *taps[N_HEADS];
};

static double leaky(double x) {
    return x > 0.0 ? x : 0.2 * x;
}

/* In place over h [B, channels, positions]. */
static void naive_norm(double *h, const double *w, const double *b, int64_t channels,
                       int64_t groups, int64_t positions) {
    int64_t n = channels / groups * positions;
    for (int64_t g = 0; g < BATCH * groups; g++) {
        double sum = 0.0, squares = 0.0, *x = h + g * n;
        for (int64_t i = 0; i < n; i++) sum += x[i];
        for (int64_t i = 0; i < n; i++)
            squares += (x[i] - sum / (double)n) * (x[i] - sum / (double)n);
        for (int64_t i = 0; i < n; i++) {
            int64_t channel = (g * n + i) / positions % channels;
            double xhat = (x[i] - sum / (double)n) / sqrt(squares / (double)n + 1e-5);
            x[i] = leaky(xhat * w[channel] + b[channel]);
        }
    }
}

/* The published sizes once more, by hand: groups of 8, 36, 16 and 16 channels. */
static const struct ConvShape naive_convs[DISCRIMINATOR_CONVS] = {
    {BATCH, 9, 8, {3, 13, 12}, {3, 6, 6}, {3, 4, 4}, {1, 2, 2}, 1},
    {BATCH, 8, 36, {3, 6, 6}, {2, 3, 3}, {3, 4, 4}, {2, 2, 2}, 1},
    {BATCH, 36, 16, {2, 3, 3}, {1, 2, 2}, {3, 3, 3}, {2, 2, 2}, 1},
    {BATCH, 16, 16, {1, 2, 2}, {1, 1, 1}, {3, 3, 3}, {2, 2, 2}, 1},
};
static const int64_t naive_groups[DISCRIMINATOR_CONVS] = {2, 18, 4, 4};

static double naive_mlp(const double *const p[], const double *pooled) {
    double logit = p[19][0];
    for (int64_t j = 0; j < config.mlp_dim; j++) {
        double z = p[17][j];
        for (int64_t i = 0; i < 16; i++) z += p[16][j * 16 + i] * pooled[i];
        logit += p[18][j] * leaky(z);
    }
    return logit;
}

/* logits [B] of one head. */
static void naive_head(const struct Naive *naive, int head, double logits[BATCH]) {
    const double *p[HEAD_PARAMS];
    for (int i = 0; i < HEAD_PARAMS; i++)
        p[i] = naive->params + naive->table->params[head * HEAD_PARAMS + i].offset;
    double buffers[2][4096], *h = naive->taps[head];
    for (int j = 0; j < DISCRIMINATOR_CONVS; j++) {
        const struct ConvShape *s = &naive_convs[j];
        const double *const *layer = p + j * CONV_PARAMS;
        double *out = buffers[j % 2];
        assert_true(naive_conv_y_elems(s) <= 4096);
        naive_conv_forward(out, h, layer[0], layer[1], s);
        naive_norm(out, layer[2], layer[3], s->out_channels, naive_groups[j],
                   s->out[0] * s->out[1] * s->out[2]);
        h = out;
    }
    for (int b = 0; b < BATCH; b++) logits[b] = naive_mlp(p, h + 16 * b); /* one position is left */
}

static double naive_loss(const struct Naive *naive, int head, const float *dlogits) {
    double logits[BATCH], sum = 0.0;
    naive_head(naive, head, logits);
    for (int b = 0; b < BATCH; b++) sum += (double)dlogits[b * N_HEADS + head] * logits[b];
    return sum;
}

/* ---- both discriminators with the same numbers */

struct Fixture {
    struct Backend *be;
    struct ParamTable table;
    struct Weights weights;
    struct Discriminator d;
    struct Arena arena;
    struct DiscriminatorTape tape;
    struct Naive naive;
    float *taps[N_HEADS], *dtaps[N_HEADS], *logits, *dlogits;
    int n_compared;
};

static float *buffer_of(const struct Fixture *f, int64_t n_elems) {
    return f->be->memory_alloc(f->be, n_elems * (int64_t)sizeof(float));
}

/* Fresh parameters, the norms' moved away from 1 and 0. */
static void fill_params(struct Fixture *f) {
    float *host = xcalloc((unsigned long)f->table.n_elems * sizeof *host);
    params_initialise(&f->table, 7, host);
    for (int p = 0; p < f->table.n_params; p++) {
        const struct ParamDesc *desc = &f->table.params[p];
        for (int64_t i = 0; i < desc->n_elems && strstr(desc->name, "norm"); i++)
            host[desc->offset + i] += 0.5f * (float)uniform(100 + (uint64_t)p, i);
    }
    f->naive.params = xcalloc((unsigned long)f->table.n_elems * sizeof(double));
    for (int64_t i = 0; i < f->table.n_elems; i++) f->naive.params[i] = (double)host[i];
    weights_upload(&f->weights, host);
    free(host);
}

static void run_forward(struct Fixture *f) {
    const Act *taps[N_HEADS] = {(Act *)f->taps[0], (Act *)f->taps[1]};
    discriminator_forward(&f->d, taps, BATCH, latents, f->logits, &f->arena, &f->tape);
}

static int setup(void **state) {
    struct Fixture *f = xcalloc(sizeof *f);
    f->be = backend_cpu_create();
    discriminator_params(&f->table, &model, &config);
    weights_alloc(&f->weights, f->be, &f->table, WEIGHTS_TRAINED);
    f->d = (struct Discriminator){&f->weights, model, config};
    arena_init(&f->arena, f->be, 1 << 20);
    f->naive.table = &f->table;
    f->logits = buffer_of(f, BATCH * N_HEADS);
    f->dlogits = buffer_of(f, BATCH * N_HEADS);
    for (int i = 0; i < BATCH * N_HEADS; i++) {
        f->logits[i] = NAN; /* must be overwritten */
        f->dlogits[i] = (float)uniform(2, i);
    }
    fill_params(f);
    for (int k = 0; k < N_HEADS; k++) {
        f->taps[k] = buffer_of(f, TAP_ELEMS);
        f->dtaps[k] = buffer_of(f, TAP_ELEMS);
        f->naive.taps[k] = xcalloc(TAP_ELEMS * sizeof(double));
        for (int64_t i = 0; i < TAP_ELEMS; i++) {
            f->taps[k][i] = (float)uniform(10 + (uint64_t)k, i);
            f->dtaps[k][i] = NAN; /* must be overwritten */
            f->naive.taps[k][i] = (double)f->taps[k][i];
        }
    }
    run_forward(f);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct Fixture *f = *state;
    for (int k = 0; k < N_HEADS; k++) {
        f->be->memory_free(f->be, f->taps[k]);
        f->be->memory_free(f->be, f->dtaps[k]);
        free(f->naive.taps[k]);
    }
    f->be->memory_free(f->be, f->logits);
    f->be->memory_free(f->be, f->dlogits);
    free(f->naive.params);
    arena_free(&f->arena);
    weights_free(&f->weights);
    params_free(&f->table);
    f->be->destroy(f->be);
    free(f);
    return 0;
}

static void run_backward(struct Fixture *f, bool want_taps, bool last) {
    Act *dtaps[N_HEADS] = {(Act *)f->dtaps[0], (Act *)f->dtaps[1]};
    int64_t used = f->arena.used;
    discriminator_backward(&f->d, f->dlogits, &f->tape, want_taps ? dtaps : NULL, last, &f->arena);
    assert_int_equal(f->arena.used, used);
}

/* ---- gradients along random directions */

/* Difference quotients of one head's naive loss by x. */
static void difference_slopes(const struct Fixture *f, int head, double *x, int64_t n_elems,
                              double slopes[DIRECTIONS]) {
    const double step = 1e-6;
    double *centre = xcalloc((unsigned long)n_elems * sizeof *centre);
    memcpy(centre, x, (size_t)n_elems * sizeof *x);
    for (uint64_t v = 0; v < DIRECTIONS; v++) {
        double ends[2];
        for (int end = 0; end < 2; end++) {
            for (int64_t i = 0; i < n_elems; i++)
                x[i] = centre[i] + (end ? step : -step) * uniform(1000 + v, i);
            ends[end] = naive_loss(&f->naive, head, f->dlogits);
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
        for (int64_t i = 0; i < n_elems; i++) product += (double)gradient[i] * uniform(1000 + v, i);
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
static void check_gradient(struct Fixture *f, const char *name, int head, double *x,
                           const float *gradient, int64_t n_elems) {
    double slopes[DIRECTIONS];
    difference_slopes(f, head, x, n_elems, slopes);
    if (!gradient_holds(slopes, gradient, n_elems)) fail_msg("gradient of %s", name);
    f->n_compared++;

    float *wrong = xcalloc((unsigned long)n_elems * sizeof *wrong);
    for (int64_t i = 0; i < n_elems; i++) wrong[i] = 3.0f * gradient[i];
    if (gradient_holds(slopes, wrong, n_elems)) fail_msg("accepted 3 x the gradient of %s", name);
    memcpy(wrong, gradient, (size_t)n_elems * sizeof *wrong);
    wrong[last_typical(gradient, n_elems)] = 0.0f;
    if (gradient_holds(slopes, wrong, n_elems)) fail_msg("accepted %s without its end", name);
    for (int64_t i = 0; i < n_elems; i++) wrong[i] = gradient[(i + 1) % n_elems];
    if (n_elems > 1 && gradient_holds(slopes, wrong, n_elems))
        fail_msg("accepted %s shifted by one", name);
    free(wrong);
}

static void test_gradients(void **state) {
    struct Fixture *f = *state;
    run_backward(f, true, false);
    for (int p = 0; p < f->table.n_params; p++) {
        const struct ParamDesc *desc = &f->table.params[p];
        check_gradient(f, desc->name, desc->unit, f->naive.params + desc->offset,
                       f->weights.grad + desc->offset, desc->n_elems);
    }
    for (int k = 0; k < N_HEADS; k++)
        check_gradient(f, "tap", k, f->naive.taps[k], f->dtaps[k], TAP_ELEMS);
    assert_int_equal(f->n_compared, N_HEADS * (HEAD_PARAMS + 1));
}

static void test_logits(void **state) {
    struct Fixture *f = *state;
    for (int k = 0; k < N_HEADS; k++) {
        double expected[BATCH];
        naive_head(&f->naive, k, expected);
        for (int b = 0; b < BATCH; b++) {
            double got = (double)f->logits[b * N_HEADS + k];
            if (!(fabs(got - expected[b]) <= 1e-5))
                fail_msg("logit [%d, %d]: expected %.8g, got %.8g", b, k, expected[b], got);
        }
    }
}

/* ---- what backward may leave out, and whom it tells */

/* A second backward doubles them. */
static void test_parameter_gradients_accumulate(void **state) {
    struct Fixture *f = *state;
    int64_t n_bytes = f->table.n_elems * (int64_t)sizeof(float);
    float *once = xcalloc((unsigned long)n_bytes);
    run_backward(f, false, false);
    assert_true(isnan(f->dtaps[0][0]));
    memcpy(once, f->weights.grad, (size_t)n_bytes);
    run_backward(f, true, false);
    double errors = 0.0, squares = 0.0;
    for (int64_t i = 0; i < f->table.n_elems; i++) {
        double error = (double)f->weights.grad[i] - 2.0 * (double)once[i];
        errors += error * error;
        squares += (double)once[i] * (double)once[i];
    }
    assert_true(squares > 0.0 && sqrt(errors) <= 1e-6 * sqrt(squares));
    free(once);
}

/* Without parameter gradients the taps get the same bits; a tap that is not wanted is let be. */
static void test_frozen(void **state) {
    struct Fixture *f = *state;
    float *expected = xcalloc(TAP_ELEMS * sizeof *expected);
    run_backward(f, true, false);
    memcpy(expected, f->dtaps[1], TAP_ELEMS * sizeof *expected);
    memset(f->dtaps[1], 0xff, TAP_ELEMS * sizeof *expected);
    f->dtaps[0][5] = 42.0f;

    struct Weights frozen = f->weights;
    frozen.grad = NULL;
    struct Discriminator d = {&frozen, model, config};
    Act *dtaps[N_HEADS] = {NULL, (Act *)f->dtaps[1]};
    discriminator_backward(&d, f->dlogits, &f->tape, dtaps, true, &f->arena);
    assert_memory_equal(f->dtaps[1], expected, TAP_ELEMS * sizeof *expected);
    assert_true(f->dtaps[0][5] == 42.0f);
    free(expected);
}

struct Calls {
    char text[64];
};

static void log_call(struct Calls *calls, char what, int unit) {
    size_t n = strlen(calls->text);
    snprintf(calls->text + n, sizeof calls->text - n, "%c%d", what, unit);
}

static void on_acquire(void *context, int unit) {
    log_call(context, 'a', unit);
}

static void on_release(void *context, int unit) {
    log_call(context, 'r', unit);
}

static void on_grad_ready(void *context, int unit) {
    log_call(context, 'g', unit);
}

static void test_unit_hooks(void **state) {
    struct Fixture *f = *state;
    struct Calls calls = {""};
    f->weights.hooks = (struct UnitHooks){&calls, on_acquire, on_release, on_grad_ready};
    run_forward(f);
    assert_string_equal(calls.text, "a0r0a1r1");
    calls.text[0] = 0;
    run_backward(f, false, false);
    assert_string_equal(calls.text, "a0r0a1r1");
    calls.text[0] = 0;
    run_backward(f, false, true);
    assert_string_equal(calls.text, "a0r0g0a1r1g1");
}

/* ---- names and sizes */

static void test_parameters(void **state) {
    const struct ParamTable *t = &((struct Fixture *)*state)->table;
    static const struct {
        const char *name;
        int64_t shape[PARAM_MAX_DIMS];
        int index, f32;
        double bound; /* 0: not drawn */
    } expected[] = {
        {"heads.0.conv0.weight", {8, 9, 3, 4, 4}, 0, 0, 1 / 20.784609690826528},
        {"heads.0.conv0.bias", {8}, 1, 0, 1 / 20.784609690826528},
        {"heads.0.norm0.weight", {8}, 2, 1, 0},
        {"heads.0.norm0.bias", {8}, 3, 1, 0},
        {"heads.0.conv1.weight", {36, 8, 3, 4, 4}, 4, 0, 1 / 19.595917942265423},
        {"heads.1.conv2.weight", {16, 36, 3, 3, 3}, 28, 0, 1 / 31.176914536239792},
        {"heads.1.conv3.weight", {16, 16, 3, 3, 3}, 32, 0, 1 / 20.784609690826528},
        {"heads.1.norm3.bias", {16}, 35, 1, 0},
        {"heads.1.mlp.0.weight", {7, 16}, 36, 1, 0.25},
        {"heads.1.mlp.0.bias", {7}, 37, 1, 0.25},
        {"heads.1.mlp.2.weight", {1, 7}, 38, 1, 1 / 2.6457513110645907},
        {"heads.1.mlp.2.bias", {1}, 39, 1, 1 / 2.6457513110645907},
    };
    assert_int_equal(t->n_units, N_HEADS);
    assert_string_equal(t->units[1].name, "heads.1");
    assert_int_equal(t->n_params, N_HEADS * HEAD_PARAMS);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int p = params_find(t, expected[i].name);
        assert_int_equal(p, expected[i].index);
        assert_int_equal(t->params[p].unit, p / HEAD_PARAMS);
        assert_memory_equal(t->params[p].shape, expected[i].shape, sizeof expected[i].shape);
        assert_int_equal((t->params[p].flags & PARAM_F32) != 0, expected[i].f32);
        if (expected[i].bound == 0.0) continue;
        assert_int_equal(t->params[p].init, INIT_UNIFORM);
        assert_true(fabs(t->params[p].init_scale - expected[i].bound) < 1e-12);
    }
}

static void test_fresh_norms_are_neutral(void **state) {
    const struct ParamTable *t = &((struct Fixture *)*state)->table;
    float *host = xcalloc((unsigned long)t->n_elems * sizeof *host);
    params_initialise(t, 3, host);
    const struct ParamDesc *weight = &t->params[params_find(t, "heads.1.norm2.weight")];
    const struct ParamDesc *bias = &t->params[params_find(t, "heads.1.norm2.bias")];
    for (int64_t i = 0; i < weight->n_elems; i++) {
        assert_true(host[weight->offset + i] == 1.0f);
        assert_true(host[bias->offset + i] == 0.0f);
    }
    free(host);
}

static void test_fits(void **state) {
    (void)state;
    static const struct {
        struct VideoShape shape;
        bool fits;
    } cases[] = {
        {{21, 60, 104}, true}, {{1, 4, 4}, true},    {{1, 3, 4}, false},  {{1, 4, 3}, false},
        {{1, 1, 64}, false},   {{0, 64, 64}, false}, {{4, 16, 16}, true}, {{-3, 16, 16}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (discriminator_fits(cases[i].shape) != cases[i].fits) fail_msg("case %d", (int)i);
}

/* Wan2.1 1.3B on 480 x 832, 81 frames. */
static void test_conv_shapes(void **state) {
    (void)state;
    struct ModelConfig wan = {.dim = 1536, .patch_size = {1, 2, 2}};
    struct DiscriminatorConfig heads = {.channels = {256, 512, 384}, .mlp_dim = 256};
    static const struct ConvShape expected[DISCRIMINATOR_CONVS] = {
        {3, 384, 256, {21, 60, 104}, {21, 30, 52}, {3, 4, 4}, {1, 2, 2}, 1},
        {3, 256, 512, {21, 30, 52}, {11, 15, 26}, {3, 4, 4}, {2, 2, 2}, 1},
        {3, 512, 384, {11, 15, 26}, {6, 8, 13}, {3, 3, 3}, {2, 2, 2}, 1},
        {3, 384, 384, {6, 8, 13}, {3, 4, 7}, {3, 3, 3}, {2, 2, 2}, 1},
    };
    struct ConvShape convs[DISCRIMINATOR_CONVS];
    discriminator_conv_shapes(convs, &wan, &heads, 3, (struct VideoShape){21, 60, 104});
    assert_memory_equal(convs, expected, sizeof convs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_parameters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fresh_norms_are_neutral, setup, teardown),
        cmocka_unit_test(test_fits),
        cmocka_unit_test(test_conv_shapes),
        cmocka_unit_test_setup_teardown(test_logits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gradients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parameter_gradients_accumulate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frozen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unit_hooks, setup, teardown),
    };
    return cmocka_run_group_tests_name("discriminator", tests, NULL, NULL);
}
