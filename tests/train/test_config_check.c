/* Contradictions: each rule is broken once by overrides, and mended once where that tells more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config_fixture.h"
#include "train/config.h"

enum { MAX_OVERRIDES = 6 };

/* The defaults, then the overrides up to the first NULL. */
static void set(struct Config *config, const char *const overrides[MAX_OVERRIDES]) {
    struct Error err = {0};
    config_init(config);
    for (int i = 0; i < MAX_OVERRIDES && overrides[i]; i++)
        if (!config_override(config, overrides[i], &err)) fail_msg("%s", err.text);
}

struct Case {
    const char *overrides[MAX_OVERRIDES];
    const char *message; /* NULL: no contradiction */
};

static void run_cases(const struct Case *cases, size_t n_cases) {
    for (size_t i = 0; i < n_cases; i++) {
        struct Config config;
        struct Error err = {0};
        set(&config, cases[i].overrides);
        bool ok = config_check(&config, &err);
        if (ok != !cases[i].message)
            fail_msg("case %zu (%s): expected '%s', got '%s'", i, cases[i].overrides[0],
                     cases[i].message ? cases[i].message : "", err.text);
        if (!ok) {
            assert_string_equal(err.text, cases[i].message);
            assert_int_equal(err.exit_code, EXIT_USER);
        }
        config_free(&config);
    }
}

#define RUN_CASES(cases) run_cases(cases, sizeof(cases) / sizeof *(cases))

static void test_model(void **state) {
    (void)state;
    const struct Case cases[] = {
        {{NULL}, NULL},
        {{"model.dim=100"},
         "model.dim must be a multiple of model.num_heads, but model.dim is 100 (override), "
         "model.num_heads is 12 (default)"},
        {{"model.dim=36", "model.num_heads=4"},
         "the width of a head, model.dim / model.num_heads, must be even for the rotary embedding, "
         "but model.dim is 36 (override), model.num_heads is 4 (override)"},
        {{"model.freq_dim=17"},
         "model.freq_dim must be even: half of it are cosines, half sines, but model.freq_dim is "
         "17 "
         "(override)"},
        {{"model.out_dim=3"},
         "model.out_dim must equal model.in_dim: a velocity has the shape of its latent, but "
         "model.in_dim is 16 (default), model.out_dim is 3 (override)"},
        {{"model.out_dim=3", "kind=dit"}, NULL},
        {{"skip_layers=[3, 30]"},
         "skip_layers must name blocks from 0 to model.num_layers - 1, but skip_layers is [3, 30] "
         "(override), model.num_layers is 30 (default)"},
        {{"train.stage=kd", "init.teacher=a", "kd.skip_layers=[30]"},
         "kd.skip_layers must name blocks from 0 to model.num_layers - 1, but kd.skip_layers is "
         "[30] (override), model.num_layers is 30 (default)"},
        {{"kd.skip_layers=[30]"}, NULL}, /* the stage is another */
    };
    RUN_CASES(cases);
}

static void test_student(void **state) {
    (void)state;
    const struct Case cases[] = {
        {{"student.head_blocks=30"}, NULL}, /* training a teacher needs no student */
        {{"train.stage=stage2", "init.teacher=a", "student.head_blocks=30"},
         "student.head_blocks must be less than model.num_layers: the backbone needs a block, but "
         "student.head_blocks is 30 (override), model.num_layers is 30 (default)"},
        {{"train.stage=stage2", "init.teacher=a", "student.head_blocks=29"}, NULL},
        {{"train.stage=stage2", "init.teacher=a", "student.head_blocks=0"}, NULL},
        {{"kind=stage1", "student.head_blocks=0"},
         "stage1 trains the flow head, so student.head_blocks must be at least 1, but "
         "student.head_blocks is 0 (override)"},
        {{"kind=sample", "student.outer_steps=64", "student.outer_shift=20"},
         "the outer time grid must ascend up to student.t_max, but student.outer_steps is 64 "
         "(override), student.outer_shift is 20 (override), student.t_max is 0.999 (default)"},
        {{"kind=sample", "student.outer_steps=64"}, NULL},
        {{"kind=sample", "student.t_max=0.9"},
         "the outer time grid must ascend up to student.t_max, but student.outer_steps is 2 "
         "(default), student.outer_shift is 10 (default), student.t_max is 0.9 (override)"},
        {{"kind=sample", "student.inner_steps=16", "student.inner_shift=100"},
         "the inner time grid must ascend up to student.t_max, but student.inner_steps is 16 "
         "(override), student.inner_shift is 100 (override), student.t_max is 0.999 (default)"},
    };
    RUN_CASES(cases);
}

static void test_discriminator(void **state) {
    (void)state;
    const struct Case cases[] = {
        {{"kind=critic", "discriminator.features=[]"},
         "discriminator.features must name at least one block unless discriminator.type is none or "
         "stage2.gan_weight is 0, but discriminator.features is [] (override), discriminator.type "
         "is conv3d (default), stage2.gan_weight is 0.03 (default)"},
        {{"kind=critic", "discriminator.features=[]", "stage2.gan_weight=0"}, NULL},
        {{"kind=critic", "discriminator.features=[]", "discriminator.type=none"}, NULL},
        {{"kind=critic", "discriminator.features=[3, 3]"},
         "discriminator.features must be strictly ascending, but discriminator.features is [3, 3] "
         "(override)"},
        {{"kind=critic", "discriminator.features=[3, 30]"},
         "discriminator.features must name blocks from 0 to model.num_layers - 1, but "
         "discriminator.features is [3, 30] (override), model.num_layers is 30 (default)"},
        {{"kind=critic", "model.patch_size=[1, 5, 1]"},
         "the discriminator spreads a token over its patch, so model.dim must be a multiple of the "
         "patch's volume, but model.dim is 1536 (default), model.patch_size is [1, 5, 1] "
         "(override)"},
        {{"kind=critic", "discriminator.channels=[16, 18, 32]"},
         "each of discriminator.channels up to 32 must be a multiple of its group count, a quarter "
         "of it rounded down, but discriminator.channels is [16, 18, 32] (override)"},
        {{"kind=critic", "discriminator.channels=[3, 33, 8]"}, NULL},
        {{"kind=critic", "discriminator.channels=[16, 18, 32]", "discriminator.type=attention"},
         NULL},
        {{"kind=stage1", "discriminator.features=[]"}, NULL}, /* not used there */
    };
    RUN_CASES(cases);
}

static void test_device(void **state) {
    (void)state;
    const struct Case cases[] = {
        {{"model.dim=10400", "model.num_heads=80", "device.backend=cuda"},
         "model.dim must be at most 10240 where device.backend is cuda, but model.dim is 10400 "
         "(override), device.backend is cuda (override)"},
        {{"model.dim=10240", "model.num_heads=80", "device.backend=cuda"}, NULL},
        {{"model.dim=10400", "model.num_heads=80"}, NULL},
    };
    RUN_CASES(cases);
}

static void test_parallel(void **state) {
    (void)state;
    const struct Case cases[] = {
        {{"parallel.sequence=5"},
         "parallel.sequence must divide model.num_heads, but parallel.sequence is 5 (override), "
         "model.num_heads is 12 (default)"},
        {{"parallel.sequence=4"}, NULL},
        {{"parallel.replicas=2"},
         "parallel.replicas above 1 needs parallel.shard optimizer or full, but parallel.replicas is "
         "2 (override), parallel.shard is none (default)"},
        {{"parallel.replicas=2", "parallel.shard=full"}, NULL},
    };
    RUN_CASES(cases);
}

static void test_stages(void **state) {
    (void)state;
    const struct Case cases[] = {
        {{"kind=stage1", "stage1.s_min=0.5", "stage1.s_max=0.5"},
         "stage1.s_min must be less than stage1.s_max, but stage1.s_min is 0.5 (override), "
         "stage1.s_max is 0.5 (override)"},
        {{"kind=stage1", "stage1.s_min=0.5", "stage1.s_max=0.505"},
         "stage1.fd_delta must fit twice between stage1.s_min and stage1.s_max, but "
         "stage1.fd_delta "
         "is 0.005 (default), stage1.s_min is 0.5 (override), stage1.s_max is 0.505 (override)"},
        {{"kind=student", "stage2.t_min=0.999"},
         "stage2.t_min must be less than stage2.t_max, but stage2.t_min is 0.999 (override), "
         "stage2.t_max is 0.999 (default)"},
        {{"train.stage=kd"},
         "stage kd needs weights to start from, init.teacher or init.student, but train.stage is "
         "kd "
         "(override), init.teacher is \"\" (default), init.student is \"\" (default)"},
        {{"train.stage=stage1"},
         "stage stage1 needs weights to start from, init.teacher or init.student, but train.stage "
         "is stage1 (override), init.teacher is \"\" (default), init.student is \"\" (default)"},
        {{"train.stage=stage1", "init.student=a.h5"}, NULL},
        {{"train.stage=stage2", "init.student=a.h5"},
         "stage stage2 needs the weights of the teacher, init.teacher, but train.stage is stage2 "
         "(override), init.teacher is \"\" (default)"},
        {{"train.stage=stage2", "init.teacher=a.h5"}, NULL},
    };
    RUN_CASES(cases);
}

static void test_run(void **state) {
    (void)state;
    const struct Case cases[] = {
        {{"optimizer.warmup=4001"},
         "optimizer.warmup must not exceed train.iterations, but optimizer.warmup is 4001 "
         "(override), train.iterations is 4000 (default)"},
        {{"optimizer.warmup=4000"}, NULL},
        {{"train.micro_batch=65"},
         "train.micro_batch must not exceed train.global_batch, but train.micro_batch is 65 "
         "(override), train.global_batch is 64 (default)"},
        {{"train.dump_at=4000"},
         "train.dump_at must be an iteration of the run, which counts from 0 to train.iterations - "
         "1, but train.dump_at is 4000 (override), train.iterations is 4000 (default)"},
        {{"train.dump_at=3999"}, NULL},
        {{"checkpoint.keep_every=750"},
         "checkpoint.keep_every must be a multiple of checkpoint.every, but checkpoint.keep_every "
         "is 750 (override), checkpoint.every is 500 (default)"},
    };
    RUN_CASES(cases);
}

static void test_a_message_says_where_a_value_was_given(void **state) {
    struct Config config;
    struct Error err = {0};
    free(fixture_write_text(state, "base.yaml", "model:\n  dim: 100\n"));
    fixture_load(state, &config, "base: base.yaml\n\nmodel:\n  num_heads: 3\n");
    assert_false(config_check(&config, &err));
    char *expected = xprintf("model.dim must be a multiple of model.num_heads, but model.dim is "
                             "100 (%s/base.yaml:2), model.num_heads is 3 (%s/case.yaml:4)",
                             (char *)*state, (char *)*state);
    assert_string_equal(err.text, expected);
    free(expected);
    config_free(&config);
}

static void test_a_run_needs_folder_and_data(void **state) {
    (void)state;
    struct Config config;
    struct Error err = {0};
    set(&config, (const char *const[MAX_OVERRIDES]){"data.files=[a.h5]"});
    assert_false(config_check_run(&config, &err));
    assert_string_equal(err.text,
                        "a run needs a folder for what it writes, out, but out is \"\" (default)");
    assert_true(config_override(&config, "out=a", &err));
    assert_true(config_check_run(&config, &err));
    assert_true(config_override(&config, "data.files=[]", &err));
    assert_false(config_check_run(&config, &err));
    assert_string_equal(err.text,
                        "a run needs a data set, data.files, but data.files is [] (override)");
    config_free(&config);
}

/* ---- the shape of the data ---- */

static void test_patches_tile_the_video(void **state) {
    (void)state;
    struct Config config;
    struct Error err = {0};
    set(&config, (const char *const[MAX_OVERRIDES]){"model.patch_size=[2, 3, 5]"});
    assert_true(config_check_video(&config, &(struct VideoShape){4, 6, 10}, &err));
    static const struct VideoShape wrong[] = {
        {5, 6, 10}, {4, 7, 10}, {4, 6, 11}, {0, 6, 10}, {4, -3, 10}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(config_check_video(&config, &wrong[i], &err));
    assert_false(config_check_video(&config, &wrong[0], &err));
    assert_string_equal(err.text, "model.patch_size is [2, 3, 5], which must divide latents of 5 "
                                  "frames x 6 rows x 10 columns");
    config_free(&config);
}

static void test_every_part_has_a_token(void **state) {
    (void)state;
    struct Config config;
    struct Error err = {0};
    set(&config, (const char *const[MAX_OVERRIDES]){"model.patch_size=[2, 3, 5]",
                                                    "parallel.sequence=12"});
    assert_true(config_check_video(&config, &(struct VideoShape){4, 9, 10}, &err));
    assert_false(config_check_video(&config, &(struct VideoShape){4, 6, 10}, &err));
    assert_string_equal(err.text, "parallel.sequence is 12, but latents of 4 frames x 6 rows x 10 "
                                  "columns have only 8 tokens to split");
    config_free(&config);
}

/* Rows and columns: 4 -> 2 -> 1 -> 1 -> 1; 3 -> 1 -> nothing, as a kernel of 4 needs 2.  Frames:
 * any number, as a kernel of 3 with padding 1 needs 1. */
static void test_convolutions_leave_something(void **state) {
    (void)state;
    struct Config config;
    struct Error err = {0};
    set(&config, (const char *const[MAX_OVERRIDES]){"kind=critic", "model.patch_size=[1, 1, 1]"});
    assert_true(config_check_video(&config, &(struct VideoShape){21, 60, 104}, &err));
    assert_true(config_check_video(&config, &(struct VideoShape){1, 4, 4}, &err));
    assert_false(config_check_video(&config, &(struct VideoShape){4, 4, 3}, &err));
    assert_string_equal(err.text,
                        "discriminator.type is conv3d, but latents of 4 frames x 4 rows x 3 "
                        "columns leave nothing for layer 2 of its convolutions: expected a larger "
                        "grid, the type attention, or none");
    assert_true(config_override(&config, "discriminator.type=separable", &err));
    assert_false(config_check_video(&config, &(struct VideoShape){4, 1, 4}, &err));
    expect_contains(err.text, "discriminator.type is separable");
    expect_contains(err.text, "layer 1 of its convolutions");
    static const char *const without[] = {"discriminator.type=attention", "discriminator.type=none",
                                          "stage2.gan_weight=0"};
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        assert_true(config_override(&config, "discriminator.type=conv3d", &err));
        assert_false(config_check_video(&config, &(struct VideoShape){4, 1, 4}, &err));
        assert_true(config_override(&config, without[i], &err));
        assert_true(config_check_video(&config, &(struct VideoShape){4, 1, 4}, &err));
    }
    config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_student),
        cmocka_unit_test(test_discriminator),
        cmocka_unit_test(test_device),
        cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_a_message_says_where_a_value_was_given),
        cmocka_unit_test(test_a_run_needs_folder_and_data),
        cmocka_unit_test(test_patches_tile_the_video),
        cmocka_unit_test(test_every_part_has_a_token),
        cmocka_unit_test(test_convolutions_leave_something),
    };
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
