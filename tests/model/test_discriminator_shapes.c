/* What a discriminator of each type consists of: names, shapes and fresh values of its tensors, the
 * convolutions of its layers, and the latents that leave something for them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "error.h"
#include "model/discriminator_conv.h"

static const struct ModelConfig model = {.dim = 36, .patch_size = {1, 2, 2}};

static struct DiscriminatorConfig heads_of(enum DiscriminatorType type) {
    return (struct DiscriminatorConfig){
        .type = type, .features = {.items = {1, 2}, .n = 2}, .channels = {8, 36, 16}, .mlp_dim = 7};
}

/* ---- tensors ---- */

struct ExpectedParam {
    const char *name;
    int64_t shape[PARAM_MAX_DIMS];
    int flags;
    enum ParamInit init;
    double fan_in; /* of INIT_UNIFORM */
};

/* The first head's tensors in order; the second has the same. */
static void check_params(enum DiscriminatorType type, const struct ExpectedParam *expected, int n) {
    struct ParamTable t = {0};
    struct DiscriminatorConfig config = heads_of(type);
    discriminator_params(&t, &model, &config);
    assert_int_equal(t.n_units, 2);
    assert_string_equal(t.units[0].name, "heads.0");
    assert_string_equal(t.units[1].name, "heads.1");
    assert_int_equal(t.n_params, 2 * n);
    for (int i = 0; i < 2 * n; i++) {
        const struct ParamDesc *p = &t.params[i];
        const struct ExpectedParam *e = &expected[i % n];
        char *name = xprintf("heads.%d.%s", i / n, e->name);
        assert_string_equal(p->name, name);
        free(name);
        assert_int_equal(p->unit, i / n);
        assert_memory_equal(p->shape, e->shape, sizeof e->shape);
        assert_int_equal(p->flags, e->flags);
        assert_int_equal(p->init, e->init);
        if (e->init == INIT_UNIFORM)
            assert_true(fabs(p->init_scale - 1.0 / sqrt(e->fan_in)) < 1e-12);
        if (e->init == INIT_CONSTANT) assert_true(p->init_scale == 1.0);
    }
    params_free(&t);
}

#define CONV(name, n_out, n_in, kt, kh, kw)                                                        \
    {name ".weight", {n_out, n_in, kt, kh, kw}, 0, INIT_UNIFORM, n_in * kt * kh * kw}, {           \
        name ".bias", {n_out}, 0, INIT_UNIFORM, n_in *kt *kh *kw                                   \
    }
#define NORM(name, n)                                                                              \
    {name ".weight", {n}, PARAM_F32, INIT_CONSTANT, 0}, {                                          \
        name ".bias", {n}, PARAM_F32, INIT_ZERO, 0                                                 \
    }
#define MLP                                                                                        \
    {"mlp.0.weight", {7, 16}, PARAM_F32, INIT_UNIFORM, 16},                                        \
        {"mlp.0.bias", {7}, PARAM_F32, INIT_UNIFORM, 16},                                          \
        {"mlp.2.weight", {1, 7}, PARAM_F32, INIT_UNIFORM, 7}, {                                    \
        "mlp.2.bias", {1}, PARAM_F32, INIT_UNIFORM, 7                                              \
    }
#define N_OF(array) ((int)(sizeof(array) / sizeof *(array)))

static void test_conv3d_params(void **state) {
    (void)state;
    static const struct ExpectedParam expected[] = {
        CONV("conv0", 8, 9, 3, 4, 4),
        NORM("norm0", 8),
        CONV("conv1", 36, 8, 3, 4, 4),
        NORM("norm1", 36),
        CONV("conv2", 16, 36, 3, 3, 3),
        NORM("norm2", 16),
        CONV("conv3", 16, 16, 3, 3, 3),
        NORM("norm3", 16),
        MLP,
    };
    check_params(DISCRIMINATOR_CONV3D, expected, N_OF(expected));
}

static void test_separable_params(void **state) {
    (void)state;
    static const struct ExpectedParam expected[] = {
        CONV("conv0.space", 8, 9, 1, 4, 4),
        CONV("conv0.time", 8, 8, 3, 1, 1),
        NORM("norm0", 8),
        CONV("conv1.space", 36, 8, 1, 4, 4),
        CONV("conv1.time", 36, 36, 3, 1, 1),
        NORM("norm1", 36),
        CONV("conv2.space", 16, 36, 1, 3, 3),
        CONV("conv2.time", 16, 16, 3, 1, 1),
        NORM("norm2", 16),
        CONV("conv3.space", 16, 16, 1, 3, 3),
        CONV("conv3.time", 16, 16, 3, 1, 1),
        NORM("norm3", 16),
        MLP,
    };
    check_params(DISCRIMINATOR_SEPARABLE, expected, N_OF(expected));
}

static void test_attention_params(void **state) {
    (void)state;
    static const struct ExpectedParam expected[] = {
        NORM("norm", 36),
        {"attention.k.weight", {16, 36}, 0, INIT_UNIFORM, 36},
        {"attention.v.weight", {16, 36}, PARAM_JOINED, INIT_UNIFORM, 36},
        {"attention.query", {16}, PARAM_F32, INIT_UNIFORM, 1},
        MLP,
    };
    check_params(DISCRIMINATOR_ATTENTION, expected, N_OF(expected));
}

/* ---- convolutions ---- */

/* Wan2.1 1.3B on 480 x 832, 81 frames. */
static void check_layers(enum DiscriminatorType type, const struct ConvLayer *expected) {
    struct ModelConfig wan = {.dim = 1536, .patch_size = {1, 2, 2}};
    struct DiscriminatorConfig heads = {.type = type, .channels = {256, 512, 384}, .mlp_dim = 256};
    struct ConvLayer layers[DISCRIMINATOR_LAYERS];
    discriminator_conv_layers(layers, &wan, &heads, 3, (struct VideoShape){21, 60, 104});
    for (int j = 0; j < DISCRIMINATOR_LAYERS; j++) {
        assert_int_equal(layers[j].n, expected[j].n);
        for (int c = 0; c < layers[j].n; c++)
            assert_memory_equal(&layers[j].convs[c], &expected[j].convs[c],
                                sizeof *layers[j].convs);
    }
}

static void test_conv3d_layers(void **state) {
    (void)state;
    static const struct ConvLayer expected[DISCRIMINATOR_LAYERS] = {
        {1, {{3, 384, 256, {21, 60, 104}, {21, 30, 52}, {3, 4, 4}, {1, 2, 2}, {1, 1, 1}}}},
        {1, {{3, 256, 512, {21, 30, 52}, {11, 15, 26}, {3, 4, 4}, {2, 2, 2}, {1, 1, 1}}}},
        {1, {{3, 512, 384, {11, 15, 26}, {6, 8, 13}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}}}},
        {1, {{3, 384, 384, {6, 8, 13}, {3, 4, 7}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}}}},
    };
    check_layers(DISCRIMINATOR_CONV3D, expected);
}

static void test_separable_layers(void **state) {
    (void)state;
    static const struct ConvLayer expected[DISCRIMINATOR_LAYERS] = {
        {2,
         {{3, 384, 256, {21, 60, 104}, {21, 30, 52}, {1, 4, 4}, {1, 2, 2}, {0, 1, 1}},
          {3, 256, 256, {21, 30, 52}, {21, 30, 52}, {3, 1, 1}, {1, 1, 1}, {1, 0, 0}}}},
        {2,
         {{3, 256, 512, {21, 30, 52}, {21, 15, 26}, {1, 4, 4}, {1, 2, 2}, {0, 1, 1}},
          {3, 512, 512, {21, 15, 26}, {11, 15, 26}, {3, 1, 1}, {2, 1, 1}, {1, 0, 0}}}},
        {2,
         {{3, 512, 384, {11, 15, 26}, {11, 8, 13}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}},
          {3, 384, 384, {11, 8, 13}, {6, 8, 13}, {3, 1, 1}, {2, 1, 1}, {1, 0, 0}}}},
        {2,
         {{3, 384, 384, {6, 8, 13}, {6, 4, 7}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}},
          {3, 384, 384, {6, 4, 7}, {3, 4, 7}, {3, 1, 1}, {2, 1, 1}, {1, 0, 0}}}},
    };
    check_layers(DISCRIMINATOR_SEPARABLE, expected);
}

static void test_starved_layer(void **state) {
    (void)state;
    static const struct {
        struct VideoShape shape;
        int layer;
    } cases[] = {
        {{21, 60, 104}, -1}, {{1, 4, 4}, -1},  {{1, 3, 4}, 1},    {{1, 4, 3}, 1},
        {{1, 1, 64}, 0},     {{0, 64, 64}, 0}, {{4, 16, 16}, -1}, {{-3, 16, 16}, 0},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        struct VideoShape shape = cases[i].shape;
        int layer = cases[i].layer;
        if (discriminator_starved_layer(DISCRIMINATOR_CONV3D, shape) != layer ||
            discriminator_starved_layer(DISCRIMINATOR_SEPARABLE, shape) != layer ||
            discriminator_starved_layer(DISCRIMINATOR_ATTENTION, shape) != -1)
            fail_msg("case %d", i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv3d_params),    cmocka_unit_test(test_separable_params),
        cmocka_unit_test(test_attention_params), cmocka_unit_test(test_conv3d_layers),
        cmocka_unit_test(test_separable_layers), cmocka_unit_test(test_starved_layer),
    };
    return cmocka_run_group_tests_name("discriminator_shapes", tests, NULL, NULL);
}
