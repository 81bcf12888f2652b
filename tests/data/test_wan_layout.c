/* Names and shapes of Wan's tensors in both layouts, and both forms of config.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../model/wan_sizes.h"
#include "data/wan_config.h"
#include "data/wan_layout.h"
#include "scratch.h"

static const struct ModelConfig tiny = {
    .dim = 36,
    .ffn_dim = 80,
    .num_heads = 2,
    .num_layers = 3,
    .freq_dim = 16,
    .text_dim = 12,
    .text_len = 10,
    .in_dim = 4,
    .out_dim = 5,
    .patch_size = {2, 4, 3},
    .eps = 1e-5,
};

/* ---- names and shapes ---- */

static int64_t count_params(const struct ModelConfig *model) {
    int64_t n_params = 0;
    for (int64_t i = 0; i < wan_layout_count(model); i++) {
        struct WanTensor tensor = wan_layout_tensor(model, WAN_ORIGINAL, i);
        int64_t n = 1;
        for (int d = 0; d < tensor.n_dims; d++) n *= tensor.shape[d];
        n_params += n;
    }
    return n_params;
}

static void test_published_sizes(void **state) {
    (void)state;
    assert_int_equal(wan_layout_count(&wan_1_3b), 825);
    assert_int_equal(wan_layout_count(&wan_14b), 1095);
    assert_true(count_params(&wan_1_3b) == INT64_C(1418996800));
    assert_true(count_params(&wan_14b) == INT64_C(14288491584));
}

static void test_every_name_translates_both_ways(void **state) {
    (void)state;
    for (int64_t i = 0; i < wan_layout_count(&wan_14b); i++) {
        struct WanTensor ours = wan_layout_tensor(&wan_14b, WAN_ORIGINAL, i);
        struct WanTensor theirs = wan_layout_tensor(&wan_14b, WAN_DIFFUSERS, i);
        char renamed[WAN_MAX_NAME];
        assert_true(wan_layout_rename(ours.name, WAN_ORIGINAL, WAN_DIFFUSERS, renamed));
        assert_string_equal(renamed, theirs.name);
        assert_true(wan_layout_rename(theirs.name, WAN_DIFFUSERS, WAN_ORIGINAL, renamed));
        assert_string_equal(renamed, ours.name);
        assert_true(wan_layout_rename(ours.name, WAN_ORIGINAL, WAN_ORIGINAL, renamed));
        assert_string_equal(renamed, ours.name);
        assert_int_equal(ours.n_dims, theirs.n_dims);
        assert_memory_equal(ours.shape, theirs.shape, sizeof ours.shape);
        for (int64_t j = 0; j < i; j++)
            assert_string_not_equal(wan_layout_tensor(&wan_14b, WAN_DIFFUSERS, j).name,
                                    theirs.name);
    }
}

static void test_known_pairs(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"patch_embedding.weight", "patch_embedding.weight"},
        {"text_embedding.0.bias", "condition_embedder.text_embedder.linear_1.bias"},
        {"text_embedding.2.weight", "condition_embedder.text_embedder.linear_2.weight"},
        {"time_embedding.0.weight", "condition_embedder.time_embedder.linear_1.weight"},
        {"time_projection.1.weight", "condition_embedder.time_proj.weight"},
        {"blocks.7.modulation", "blocks.7.scale_shift_table"},
        {"blocks.12.self_attn.q.weight", "blocks.12.attn1.to_q.weight"},
        {"blocks.0.self_attn.o.bias", "blocks.0.attn1.to_out.0.bias"},
        {"blocks.0.cross_attn.norm_k.weight", "blocks.0.attn2.norm_k.weight"},
        {"blocks.0.norm3.weight", "blocks.0.norm2.weight"},
        {"blocks.0.ffn.0.weight", "blocks.0.ffn.net.0.proj.weight"},
        {"blocks.0.ffn.2.bias", "blocks.0.ffn.net.2.bias"},
        {"head.modulation", "scale_shift_table"},
        {"head.head.weight", "proj_out.weight"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char renamed[WAN_MAX_NAME];
        assert_true(wan_layout_rename(pairs[i][0], WAN_ORIGINAL, WAN_DIFFUSERS, renamed));
        assert_string_equal(renamed, pairs[i][1]);
    }
}

static void test_known_shapes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int n_dims;
        int64_t shape[WAN_MAX_DIMS];
    } expected[] = {
        {"patch_embedding.weight", 5, {36, 4, 2, 4, 3}},
        {"patch_embedding.bias", 1, {36}},
        {"text_embedding.0.weight", 2, {36, 12}},
        {"time_embedding.0.weight", 2, {36, 16}},
        {"time_projection.1.bias", 1, {216}},
        {"blocks.2.modulation", 3, {1, 6, 36}},
        {"blocks.1.ffn.0.weight", 2, {80, 36}},
        {"blocks.1.ffn.0.bias", 1, {80}},
        {"blocks.1.ffn.2.weight", 2, {36, 80}},
        {"blocks.1.self_attn.norm_q.weight", 1, {36}},
        {"head.modulation", 3, {1, 2, 36}},
        {"head.head.weight", 2, {120, 36}},
    };
    size_t n_found = 0;
    for (int64_t i = 0; i < wan_layout_count(&tiny); i++) {
        struct WanTensor tensor = wan_layout_tensor(&tiny, WAN_ORIGINAL, i);
        for (size_t e = 0; e < sizeof expected / sizeof *expected; e++) {
            if (strcmp(tensor.name, expected[e].name) != 0) continue;
            assert_int_equal(tensor.n_dims, expected[e].n_dims);
            assert_memory_equal(tensor.shape, expected[e].shape,
                                (size_t)tensor.n_dims * sizeof *tensor.shape);
            n_found++;
        }
    }
    assert_int_equal(n_found, sizeof expected / sizeof *expected);
}

static void test_names_that_are_none(void **state) {
    (void)state;
    static const char *const names[] = {
        "",
        "blocks",
        "blocks.",
        "blocks.0",
        "blocks.0.",
        "blocks.x.modulation",
        "blocks.-1.modulation",
        "blocks.01.modulation",
        "blocks.+1.modulation",
        "blocks. 1.modulation",
        "blocks.99999.modulation",
        "blocks.0.modulation.weight",
        "blocks.0.modulatio",
        "blocks.0.norm2.weight",
        "patch_embedding",
        "blocks.0.self_attn.norm_q.bias",
        "blocks.0.self_attn.q.weight2",
        "head.head",
        "xhead.head.bias",
        "blocks.0.patch_embedding.weight",
        "modulation",
        "fusion.gate",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char renamed[WAN_MAX_NAME];
        if (wan_layout_rename(names[i], WAN_ORIGINAL, WAN_DIFFUSERS, renamed))
            fail_msg("'%s' became '%s'", names[i], renamed);
    }
}

/* ---- recognition ---- */

static void test_prefixes(void **state) {
    (void)state;
    static const char *const prefixes[] = {
        "",
        "model.diffusion_model.",
        "diffusion_model.",
        "net.",
        "model.",
        "generator.model.",
        "generator_ema.model.",
        "generator.",
        "generator_ema.",
    };
    enum { N_OTHER = 2 };
    int64_t n = wan_layout_count(&tiny);
    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        for (int layout = 0; layout < WAN_LAYOUT_COUNT; layout++) {
            char **names = xmalloc((size_t)(n + N_OTHER) * sizeof *names);
            for (int64_t i = 0; i < n; i++)
                names[i] = xprintf("%s%s", prefixes[p],
                                   wan_layout_tensor(&tiny, (enum WanLayout)layout, i).name);
            names[n] = xstrdup("vae.decoder.conv.weight");
            names[n + 1] = xstrdup("step");
            struct WanNaming naming = wan_layout_recognise((const char *const *)names, n + N_OTHER);
            assert_string_equal(naming.prefix, prefixes[p]);
            assert_int_equal(naming.layout, layout);
            assert_int_equal(naming.n_known, n);
            assert_int_equal(naming.n_outside, prefixes[p][0] ? N_OTHER : 0);
            for (int64_t i = 0; i < n + N_OTHER; i++) free(names[i]);
            free(names);
        }
    }
}

static void test_averaged_weights_come_first(void **state) {
    (void)state;
    static const char *const names[] = {"generator.model.head.modulation",
                                        "generator_ema.model.head.modulation"};
    struct WanNaming naming = wan_layout_recognise(names, 2);
    assert_string_equal(naming.prefix, "generator_ema.model.");
    static const char *const others[] = {"conv.weight", "step"};
    assert_int_equal(wan_layout_recognise(others, 2).n_known, 0);
    assert_int_equal(wan_layout_recognise(NULL, 0).n_known, 0);
}

/* ---- config.json ---- */

static void assert_same_model(const struct ModelConfig *left, const struct ModelConfig *right) {
    assert_memory_equal(left, right, sizeof *left); /* no padding: int64 and double only */
}

static void test_config_round_trip(void **state) {
    char *folder = *state, *path = scratch_path(folder, "config.json");
    const struct ModelConfig *models[] = {&wan_1_3b, &wan_14b, &tiny};
    for (int m = 0; m < 3; m++) {
        for (int layout = 0; layout < WAN_LAYOUT_COUNT; layout++) {
            struct ModelConfig found;
            struct Error err;
            assert_true(wan_config_write(path, models[m], (enum WanLayout)layout, &err));
            if (!wan_config_read(path, &found, &err)) fail_msg("%s", err.text);
            assert_same_model(&found, models[m]);
        }
    }
    free(path);
}

static void test_configs_as_published(void **state) {
    static const char original[] = "{\"_class_name\": \"WanModel\", \"_diffusers_version\": "
                                   "\"0.30.0\", \"dim\": 1536, \"eps\": 1e-06,"
                                   " \"ffn_dim\": 8960, \"freq_dim\": 256, \"in_dim\": 16, "
                                   "\"model_type\": \"t2v\", \"num_heads\": 12,"
                                   " \"num_layers\": 30, \"out_dim\": 16, \"text_len\": 512}";
    static const char diffusers[] =
        "{\"_class_name\": \"WanTransformer3DModel\", \"_diffusers_version\": \"0.33.0.dev0\","
        " \"added_kv_proj_dim\": null, \"attention_head_dim\": 128, \"cross_attn_norm\": true, "
        "\"eps\": 1e-06,"
        " \"ffn_dim\": 8960, \"freq_dim\": 256, \"image_dim\": null, \"in_channels\": 16,"
        " \"num_attention_heads\": 12, \"num_layers\": 30, \"out_channels\": 16, \"patch_size\": "
        "[1, 2, 2],"
        " \"pos_embed_seq_len\": null, \"qk_norm\": \"rms_norm_across_heads\", "
        "\"rope_max_seq_len\": 1024,"
        " \"text_dim\": 4096}";
    char *path = scratch_path(*state, "config.json");
    const char *texts[] = {original, diffusers};
    for (int i = 0; i < 2; i++) {
        struct ModelConfig found;
        struct Error err;
        scratch_write(path, texts[i], strlen(texts[i]));
        if (!wan_config_read(path, &found, &err)) fail_msg("%s", err.text);
        assert_same_model(&found, &wan_1_3b);
    }
    free(path);
}

static void test_bad_configs(void **state) {
#define SIZES "\"dim\": 36, \"ffn_dim\": 80, \"num_heads\": 2"
    static const struct {
        const char *text, *what;
    } cases[] = {
        {"", "JSON"},
        {"[1]", "object"},
        {"{" SIZES "}", "num_layers"},
        {"{" SIZES ", \"num_layers\": \"3\"}", "num_layers"},
        {"{" SIZES ", \"num_layers\": 3.5}", "num_layers"},
        {"{" SIZES ", \"num_layers\": 0}", "num_layers"},
        {"{" SIZES ", \"num_layers\": -3}", "num_layers"},
        {"{" SIZES ", \"num_layers\": 1000000000}", "num_layers"},
        {"{" SIZES ", \"num_layers\": 3, \"num_layers\": 3}", "duplicate"},
        {"{" SIZES ", \"num_layers\": 3, \"eps\": \"x\"}", "eps"},
        {"{" SIZES ", \"num_layers\": 3, \"eps\": -1}", "eps"},
        {"{" SIZES ", \"num_layers\": 3, \"patch_size\": [1, 2]}", "patch_size"},
        {"{" SIZES ", \"num_layers\": 3, \"patch_size\": [0, 2, 2]}", "patch_size"},
        {"{" SIZES ", \"num_layers\": 3, \"model_type\": \"i2v\"}", "t2v"},
        {"{\"dim\": 37, \"ffn_dim\": 80, \"num_heads\": 2, \"num_layers\": 3}", "multiple"},
        {"{\"num_attention_heads\": 2, \"attention_head_dim\": 9223372036854775807, \"ffn_dim\": 8,"
         " \"num_layers\": 3}",
         "attention_head_dim"},
        {"{\"num_attention_heads\": 2, \"ffn_dim\": 8, \"num_layers\": 3, \"image_dim\": 1280}",
         "image_dim"},
        {"{\"num_attention_heads\": 2, \"ffn_dim\": 8, \"num_layers\": 3, \"qk_norm\": \"layer\"}",
         "qk_norm"},
        {"{\"num_attention_heads\": 2, \"ffn_dim\": 8, \"num_layers\": 3, \"cross_attn_norm\": "
         "false}",
         "cross_attn_norm"},
    };
    char *path = scratch_path(*state, "config.json");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ModelConfig found;
        struct Error err;
        scratch_write(path, cases[i].text, strlen(cases[i].text));
        if (wan_config_read(path, &found, &err)) fail_msg("accepted: %s", cases[i].text);
        if (!strstr(err.text, path) || !strstr(err.text, cases[i].what)) fail_msg("%s", err.text);
    }
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_sizes),
        cmocka_unit_test(test_every_name_translates_both_ways),
        cmocka_unit_test(test_known_pairs),
        cmocka_unit_test(test_known_shapes),
        cmocka_unit_test(test_names_that_are_none),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_averaged_weights_come_first),
        WITH_FOLDER(test_config_round_trip),
        WITH_FOLDER(test_configs_as_published),
        WITH_FOLDER(test_bad_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
