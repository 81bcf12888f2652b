/* Defaults, reading, layering, overriding and printing of configurations.  TMD_CONFIGS_DIR is the
 * folder configs/. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config_fixture.h"
#include "philox.h"
#include "train/config.h"
#include "train/config_keys.h"

/* ---- defaults ---- */

static void test_defaults_are_the_paper_s(void **state) {
    (void)state;
    struct Config c;
    config_init(&c);
    assert_int_equal(c.model.dim, 1536);
    assert_int_equal(c.model.ffn_dim, 8960);
    assert_int_equal(c.model.num_heads, 12);
    assert_int_equal(c.model.num_layers, 30);
    assert_int_equal(c.model.patch_size[0], 1);
    assert_int_equal(c.model.patch_size[2], 2);
    assert_true(c.model.eps == 1e-6);
    assert_int_equal(c.student.head_blocks, 5);
    assert_true(c.student.t_max == 0.999);
    assert_true(c.student.fusion_gate_init == -6);
    assert_int_equal(c.discriminator.type, DISCRIMINATOR_CONV3D);
    assert_int_equal(c.discriminator.features.n, 3);
    assert_int_equal(c.discriminator.features.items[2], 29);
    assert_int_equal(c.discriminator.channels[1], 512);
    assert_true(c.stage1.guidance == 3 && c.stage1.tm_prob == 0.75 && c.stage1.s_shift == 3);
    assert_true(c.stage2.guidance == 5 && c.stage2.gan_weight == 0.03 && c.stage2.rollout);
    assert_int_equal(c.stage2.student_every, 5);
    assert_true(c.optimizer.lr == 1e-5 && c.optimizer.eps == 1e-8);
    assert_true(c.optimizer.betas[0] == 0.9 && c.optimizer.betas[1] == 0.99);
    assert_true(c.optimizer.weight_decay == 0.01 && c.optimizer.grad_clip == 0);
    assert_true(c.ema.decay == 0);
    assert_int_equal(c.train.global_batch, 64);
    assert_int_equal(c.train.dump_at, -1);
    assert_int_equal(c.kd.pairs, 10000);
    assert_int_equal(c.kd.skip_layers.items[0], 10);
    assert_int_equal(c.sampler.steps, 50);
    assert_string_equal(c.resume, "none");
    assert_string_equal(c.out, "");
    assert_int_equal(c.data.files.n, 0);
    config_free(&c);
}

static void test_the_reference_page_lists_every_key(void **state) {
    (void)state;
    char *page = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&page, &n_bytes);
    config_print_keys(out);
    fclose(out);
    assert_true(config_n_keys > 80);
    for (int i = 0; i < config_n_keys; i++) {
        char row[CONFIG_LABEL_BYTES];
        snprintf(row, sizeof row, "\n  %s ", config_keys[i].name);
        expect_contains(page, row);
        assert_true(config_section_find(config_keys[i].section) >= 0);
        assert_int_equal(config_key_find(config_keys[i].section, config_keys[i].name), i);
    }
    for (const char *line = page; *line; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 100);
    free(page);
}

static void test_enum_names(void **state) {
    (void)state;
    assert_string_equal(config_enum_name("train.stage", STAGE_KD), "kd");
    assert_string_equal(config_enum_name("stage2.vsd_norm", VSD_NORM_DMD2), "dmd2");
}

/* ---- what is accepted ---- */

static void test_values(void **state) {
    struct Config c;
    fixture_load(state, &c,
                 "# a comment\n"
                 "out: runs/a b   # trailing\n"
                 "model: {dim: 36, patch_size: [1, 2, 2], eps: 1e-06}\n"
                 "student:\n"
                 "  fusion: concat\n"
                 "  fusion_gate_init: -6\n"
                 "  t_max: .5\n"
                 "stage1:\n"
                 "  guidance: 3\n"
                 "  norm_const_per_dim: 1.e-5\n"
                 "optimizer:\n"
                 "  betas:\n"
                 "  - 0.909\n"
                 "  - +0.5E0\n"
                 "train:\n"
                 "  recompute: keep_attention\n"
                 "  dump_at: -1\n"
                 "  seed: 9223372036854775807\n"
                 "data:\n"
                 "  files: [a.h5, \"b \\\"c\\\".h5\", '3']\n"
                 "preview:\n"
                 "resume: auto\n");
    assert_string_equal(c.out, "runs/a b");
    assert_int_equal(c.model.dim, 36);
    assert_true(c.model.eps == 1e-6);
    assert_int_equal(c.model.ffn_dim, 8960); /* not in the file */
    assert_int_equal(c.student.fusion, FUSION_CONCAT);
    assert_true(c.student.fusion_gate_init == -6 && c.student.t_max == 0.5);
    assert_true(c.stage1.guidance == 3 && c.stage1.norm_const_per_dim == 1e-5);
    assert_true(c.optimizer.betas[0] == 0.909 && c.optimizer.betas[1] == 0.5);
    assert_int_equal(c.train.recompute, RECOMPUTE_KEEP_ATTENTION);
    assert_int_equal(c.train.seed, INT64_MAX);
    assert_int_equal(c.data.files.n, 3);
    assert_string_equal(c.data.files.items[1], "b \"c\".h5");
    assert_string_equal(c.resume, "auto");
    config_free(&c);
}

static void test_empty_files_are_all_defaults(void **state) {
    static const char *texts[] = {"", "# nothing\n", "---\n", "{}\n"};
    struct Config defaults, c;
    config_init(&defaults);
    char *expected = config_to_yaml(&defaults);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        fixture_load(state, &c, texts[i]);
        char *got = config_to_yaml(&c);
        assert_string_equal(got, expected);
        free(got);
        config_free(&c);
    }
    free(expected);
    config_free(&defaults);
}

#define CASE_MODEL                                                                                 \
    "model:\n  dim: 36\n  ffn_dim: 80\n  num_heads: 2\n  num_layers: 4\n  freq_dim: 16\n"          \
    "  text_dim: 12\n  text_len: 10\n  in_dim: 4\n  out_dim: 4\n  patch_size: [1, 2, 2]\n"         \
    "  eps: 1e-06\n"
#define CASE_STUDENT                                                                               \
    "student:\n  head_blocks: 2\n  inner_steps: 2\n  outer_steps: 2\n  outer_shift: 10\n"          \
    "  inner_shift: 10\n  t_max: 0.999\n  fusion: gated\n  fusion_gate_init: -6\n"

static void test_replay_cases(void **state) {
    static const struct {
        const char *kind, *text;
    } cases[] = {
        {"adamw", "kind: adamw\noptimizer:\n  lr: 0.003\n  betas: [0.9, 0.99]\n  eps: 1e-08\n"
                  "  weight_decay: 0.01\n"},
        {"dit", "kind: dit\n" CASE_MODEL "skip_layers: [1]\n"},
        {"critic",
         "kind: critic\n" CASE_MODEL CASE_STUDENT
         "stage2:\n  guidance: 5\n  gan_weight: 0.03\n  vsd_norm: dmd2\n  t_shift: 5\n"
         "  t_min: 0.001\n  t_max: 0.999\n  student_every: 5\n"
         "discriminator:\n  features: [1, 2, 3]\n  channels: [8, 12, 16]\n  mlp_dim: 8\n"},
        {"stage1", "kind: stage1\n" CASE_MODEL CASE_STUDENT
                   "stage1:\n  guidance: 3\n  fd_delta: 0.005\n  s_min: 0.001\n  s_max: 0.999\n"
                   "  norm_const_per_dim: 1e-05\n"},
        {"teacher_sample", "kind: teacher_sample\n" CASE_MODEL
                           "sampler:\n  solver: euler\n  steps: 6\n  shift: 3\n  guidance: 5\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct Config c;
        struct Error err = {0};
        fixture_load(state, &c, cases[i].text);
        assert_string_equal(c.kind, cases[i].kind);
        if (!config_check(&c, &err)) fail_msg("%s", err.text);
        if (!strcmp(c.kind, "dit")) assert_int_equal(c.skip_layers.items[0], 1);
        if (!strcmp(c.kind, "critic")) {
            assert_int_equal(c.stage2.vsd_norm, VSD_NORM_DMD2);
            assert_int_equal(c.discriminator.type, DISCRIMINATOR_CONV3D); /* when it says nothing */
        }
        config_free(&c);
    }
}

/* ---- bases and overrides ---- */

static void test_a_base_lies_beneath(void **state) {
    free(fixture_write_text(state, "model.yaml", "model:\n  dim: 36\n  num_heads: 2\nout: base\n"));
    free(fixture_write_text(state, "middle.yaml", "base: model.yaml\nmodel:\n  dim: 48\n"));
    struct Config c;
    fixture_load(state, &c, "out: top\nbase: middle.yaml\n");
    assert_int_equal(c.model.dim, 48);
    assert_int_equal(c.model.num_heads, 2);
    assert_string_equal(c.out, "top");
    config_free(&c);
}

static void test_bases_are_at_most_four_deep(void **state) {
    free(fixture_write_text(state, "1.yaml", "base: 2.yaml\n"));
    free(fixture_write_text(state, "2.yaml", "base: 3.yaml\n"));
    free(fixture_write_text(state, "3.yaml", "base: 4.yaml\n"));
    free(fixture_write_text(state, "4.yaml", "model:\n  dim: 36\n"));
    struct Config c;
    struct Error err = {0};
    fixture_load(state, &c, "base: 1.yaml\n");
    assert_int_equal(c.model.dim, 36);
    config_free(&c);
    free(fixture_write_text(state, "4.yaml", "base: 5.yaml\n"));
    free(fixture_write_text(state, "5.yaml", ""));
    config_init(&c);
    char *path = xprintf("%s/case.yaml", (char *)*state);
    assert_false(config_load(&c, path, &err));
    expect_contains(err.text, "4.yaml:1: base: expected at most 4 files beneath one another");
    config_free(&c);
    free(path);
}

static void test_overrides(void **state) {
    (void)state;
    struct Config c;
    struct Error err = {0};
    config_init(&c);
    static const char *assignments[] = {"model.dim=48",
                                        "discriminator.features=[1, 2]",
                                        "discriminator.type=separable",
                                        "out=runs/x=y",
                                        "resume=auto",
                                        "init.student=a.h5",
                                        "init.student=",
                                        "optimizer.lr=1e-4",
                                        "student.fusion=concat",
                                        "data.files=[a.h5, 'b c.h5']"};
    for (size_t i = 0; i < sizeof assignments / sizeof *assignments; i++)
        if (!config_override(&c, assignments[i], &err)) fail_msg("%s", err.text);
    assert_int_equal(c.model.dim, 48);
    assert_int_equal(c.discriminator.type, DISCRIMINATOR_SEPARABLE);
    assert_int_equal(c.discriminator.features.n, 2);
    assert_int_equal(c.discriminator.features.items[1], 2);
    assert_string_equal(c.out, "runs/x=y");
    assert_string_equal(c.resume, "auto");
    assert_string_equal(c.init.student, "");
    assert_true(c.optimizer.lr == 1e-4);
    assert_int_equal(c.student.fusion, FUSION_CONCAT);
    assert_string_equal(c.data.files.items[1], "b c.h5");
    config_free(&c);
}

/* ---- printing ---- */

/* What `config` prints must read back as the same text. */
static void expect_round_trip(void **state, const struct Config *config) {
    struct Config again;
    char *printed = config_to_yaml(config);
    fixture_load(state, &again, printed);
    char *reprinted = config_to_yaml(&again);
    assert_string_equal(printed, reprinted);
    config_free(&again);
    free(printed);
    free(reprinted);
}

static void test_shipped_configurations(void **state) {
    glob_t found;
    assert_int_equal(glob(TMD_CONFIGS_DIR "/*/*.yaml", 0, NULL, &found), 0);
    assert_true(found.gl_pathc >= 16);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *path = found.gl_pathv[i];
        struct Config c;
        struct Error err = {0};
        config_init(&c);
        if (!config_load(&c, path, &err)) fail_msg("%s", err.text);
        if (!config_check(&c, &err)) fail_msg("%s: %s", path, err.text);
        bool is_run = !strstr(path, "/model.yaml"); /* the others only share the networks */
        if (is_run && !config_check_run(&c, &err)) fail_msg("%s: %s", path, err.text);
        expect_round_trip(state, &c);
        config_free(&c);
    }
    globfree(&found);
}

static void test_reals_keep_their_bits(void **state) {
    struct Config c, again;
    config_init(&c);
    const double reals[] = {0.1 + 0.2, 1.0 / 3, 5e-324, 1.7976931348623157e308,
                            -0.0,      1e22,    0.99,   123456789};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        c.student.fusion_gate_init = reals[i];
        char *printed = config_to_yaml(&c);
        fixture_load(state, &again, printed);
        assert_memory_equal(&again.student.fusion_gate_init, &reals[i], sizeof reals[i]);
        expect_contains(printed, "betas: [0.9, 0.99]\n"); /* the shortest form that does it */
        config_free(&again);
        free(printed);
    }
    config_free(&c);
}

static void test_strings_keep_their_bytes(void **state) {
    static const char *texts[] = {
        "",          " lead and trail ",
        "a: b # c",  "\"quoted\" \\ back",
        "tab\tnl\n", "\x01\x1b[31m\x7f",
        "\xc2\x85",  "\xe7\x8c\xab \xf0\x9f\x90\x88",
        "~",         "a \xe2\x80\xa8 b",
        "- x",       "\xef\xbb\xbf",
        "true",      "%d",
        "\xc3\xa4",  "\xef\xbf\xbe",
    };
    struct Config c, again;
    config_init(&c);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        free(c.out);
        c.out = xstrdup(texts[i]);
        char *printed = config_to_yaml(&c);
        fixture_load(state, &again, printed);
        assert_string_equal(again.out, texts[i]);
        config_free(&again);
        free(printed);
    }
    config_free(&c);
}

/* ---- damage ---- */

/* Loads damaged text: either an error that names the file, or a configuration that can be checked,
 * printed and read again.  True: it loaded. */
static bool survive(void **state, const char *text, size_t n_bytes) {
    struct Config c;
    struct Error err = {0};
    char *path = fixture_write(state, "damaged.yaml", text, n_bytes);
    config_init(&c);
    bool ok = config_load(&c, path, &err);
    if (ok) {
        expect_round_trip(state, &c);
        assert_true(config_check(&c, &err) || *err.text);
    } else {
        expect_contains(err.text, "damaged.yaml");
    }
    config_free(&c);
    free(path);
    return ok;
}

static void test_damaged_files_never_crash(void **state) {
    struct Config c;
    struct Error err = {0};
    config_init(&c);
    assert_true(config_override(&c, "data.files=[\"a\\n\\u2028.h5\", '\xe7\x8c\xab']", &err));
    assert_true(config_override(&c, "preview.prompts=['red: left', \"it's\"]", &err));
    char *text = config_to_yaml(&c);
    size_t n_bytes = strlen(text);
    int n_loaded = 0, n_tried = 0;
    for (size_t n = 0; n < n_bytes; n += 7, n_tried++) n_loaded += survive(state, text, n);
    for (uint32_t i = 0; i < 1500; i++, n_tried++) {
        char *damaged = xstrdup(text);
        struct Philox random = philox(7, i, 0, 0, 0);
        int n_flips = 1 + (int)(random.word[0] % 3);
        for (int flip = 0; flip < n_flips; flip++)
            damaged[random.word[1 + flip] % n_bytes] ^= (char)(1u << (random.word[0] >> 8) % 8);
        n_loaded += survive(state, damaged, n_bytes);
        free(damaged);
    }
    /* The damage was neither nothing nor everything. */
    assert_in_range(n_loaded, 50, n_tried - 50);
    free(text);
    config_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_the_paper_s),
        cmocka_unit_test(test_the_reference_page_lists_every_key),
        cmocka_unit_test(test_enum_names),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_empty_files_are_all_defaults),
        cmocka_unit_test(test_replay_cases),
        cmocka_unit_test(test_a_base_lies_beneath),
        cmocka_unit_test(test_bases_are_at_most_four_deep),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_shipped_configurations),
        cmocka_unit_test(test_reals_keep_their_bits),
        cmocka_unit_test(test_strings_keep_their_bytes),
        cmocka_unit_test(test_damaged_files_never_crash),
    };
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
