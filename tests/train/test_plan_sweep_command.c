/* `tmd plan --sweep`: what the flags list, and the command with its table, numbers and picture.
 * TMD_CONFIGS_DIR is the folder configs/. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../data/picture_probe.h"
#include "config_fixture.h"
#include "data/json_file.h"
#include "plan_command.h"
#include "train/plan_sweep_keys.h"

/* ---- what the flags list */

static void test_combinations(void **state) {
    (void)state;
    struct SweepKeys keys;
    struct Error err;
    static const char *const names[6] = {
        "train.recompute=none train.seed=1",  "train.recompute=none train.seed=-2",
        "train.recompute=none train.seed=3",  "train.recompute=full train.seed=1",
        "train.recompute=full train.seed=-2", "train.recompute=full train.seed=3"};
    assert_true(sweep_keys_parse(&keys, "train.recompute=none,full,train.seed=1,-2,3", &err));
    assert_int_equal(keys.n_combinations, 6);
    for (int i = 0; i < 6; i++) {
        char *name = sweep_combination_name(&keys, i);
        assert_string_equal(name, names[i]);
        free(name);
    }
    struct Config config;
    config_init(&config);
    assert_true(sweep_combination_apply(&keys, 5, &config, &err));
    assert_true(config.train.recompute == RECOMPUTE_FULL && config.train.seed == 3);
    config_free(&config);
    sweep_keys_free(&keys);

    assert_true(sweep_keys_parse(&keys, NULL, &err));
    assert_int_equal(keys.n_combinations, 1);
    char *name = sweep_combination_name(&keys, 0);
    assert_string_equal(name, "as configured");
    free(name);
    sweep_keys_free(&keys);
}

static void test_wrong_keys(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"", "expected key=value,value,key=value,..., got ''"},
        {"none,full", "got 'none'"},
        {"=1", "got '=1'"},
        {"a=", "expected single values parted by commas, without blanks or brackets, got 'a='"},
        {"a=1,,2", "got ''"},
        {"a=1,", "got ''"},
        {"a=[1,2]", "got 'a=[1'"},
        {"a=1 b=2", "got 'a=1 b=2'"},
        {"a=1,b=2,a=3", "--sweep: a is given twice"},
        {"a=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "at most 16 values of a key, got '17'"},
        {"a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1", "at most 8 keys, got i besides"},
        {"a=1,2,3,4,5,6,7,8,b=1,2,3,4,5,6,7,8,9", "at most 64 combinations, got 72"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct SweepKeys keys;
        struct Error err = {0};
        assert_false(sweep_keys_parse(&keys, wrong[i][0], &err));
        expect_contains(err.text, wrong[i][1]);
        sweep_keys_free(&keys);
    }
}

static void test_counts(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "",   "0",   "-8",  "8,",      "8,,9",
        ",8", "8,8", "9,8", "1000001", "8 ,9",
        "x",  "8x",  "+8",  " 8",      "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"};
    struct SweepCounts counts;
    struct Error err;
    assert_true(sweep_counts_parse(&counts, "8,64,1000000", &err));
    assert_true(counts.n == 3 && counts.gpus[0] == 8 && counts.gpus[2] == 1000000);
    assert_true(sweep_counts_parse(&counts, "1", &err));
    assert_true(counts.n == 1 && counts.gpus[0] == 1);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(sweep_counts_parse(&counts, wrong[i], &err));
        expect_contains(err.text, "--gpus: expected a number from 1 to 1000000");
    }
}

/* ---- the command */

#define TINY TMD_CONFIGS_DIR "/tiny/stage1.yaml"
#define TABLES "--gpu", GPU_TABLE, "--network", NETWORK_TABLE
#define SMALL_VIDEO "--frames", "4", "--height", "16", "--width", "16", "data.files=[]"

static json_t *load_json(void **state, const char *name) {
    struct Error err;
    char *path = xprintf("%s/%s", (char *)*state, name);
    json_t *root = json_file_load(path, &err);
    if (!root) fail_msg("%s", err.text);
    free(path);
    return root;
}

static double number(const json_t *object, const char *name) {
    json_t *value = json_object_get(object, name);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static void check_json_point(const json_t *point) {
    double gpus = number(point, "gpus"), seconds = number(point, "seconds");
    assert_true(json_is_true(json_object_get(point, "fits")));
    assert_true(json_is_null(json_object_get(point, "why_not")));
    double rate = number(point, "global_batch") / seconds;
    assert_true(fabs(number(point, "samples_per_second") / rate - 1.0) < 1e-12);
    double hours = gpus * number(point, "run_seconds") / 3600.0;
    assert_true(fabs(number(point, "gpu_hours") / hours - 1.0) < 1e-12);
    double parts = number(point, "exposed_seconds") + number(point, "slowest_seconds") +
                   number(point, "update_seconds") + number(point, "pass_seconds");
    assert_true(fabs(parts / seconds - 1.0) < 1e-9);
    assert_true(number(point, "memory_bytes") > 0.0 && number(point, "mfu") > 0.0);
    assert_true(number(point, "efficiency") > 0.0);
}

static void check_json(const json_t *root) {
    assert_int_equal(json_array_size(root), 1);
    const json_t *sweep = json_array_get(root, 0);
    assert_string_equal(json_string_value(json_object_get(sweep, "scale")), "strong");
    const json_t *combinations = json_object_get(sweep, "combinations");
    assert_int_equal(json_array_size(combinations), 4);
    for (size_t i = 0; i < 4; i++) {
        const json_t *combination = json_array_get(combinations, i);
        const json_t *points = json_object_get(combination, "points");
        assert_int_equal(json_array_size(points), 3);
        bool sound = i % 2 == 0; /* four heads */
        const json_t *keys = json_object_get(combination, "keys");
        assert_string_equal(json_string_value(json_object_get(keys, "model.num_heads")),
                            sound ? "4" : "5");
        for (size_t k = 0; k < 3; k++) {
            const json_t *point = json_array_get(points, k);
            if (sound && k < 2)
                check_json_point(point);
            else
                assert_true(json_is_string(json_object_get(point, "why_not")));
        }
        const json_t *from = json_object_get(combination, "scales_from");
        assert_true(sound ? json_integer_value(from) == 8 : json_is_null(from));
    }
}

/* Two of the four combinations contradict themselves. */
static void test_command(void **state) {
    char *json = xprintf("%s/sweep.json", (char *)*state);
    char *png = xprintf("%s/sweep.png", (char *)*state);
    double top = 1.0, bottom = 0.0;
    const char *words[] = {TINY,
                           TABLES,
                           SMALL_VIDEO,
                           "--json",
                           json,
                           "--sweep",
                           "train.recompute=none,full,model.num_heads=4,5",
                           "--gpus",
                           "8,64,512"};
    assert_int_equal(run_plan(state, sizeof words / sizeof *words, words), EXIT_OK);
    expect_in_file(state, "out", ": strong scaling on H100");
    expect_in_file(state, "out", "latents of 3 x 4 x 16 x 16, 64 tokens (as the flags say)");
    expect_in_file(state, "out",
                   "\n train.recompute=full model.num_heads=5\n         8       64  ");
    expect_in_file(state, "out", "\n  train.recompute=none model.num_heads=4: ");
    expect_in_file(state, "out", "model.num_heads=5: does not run: ");
    json_t *root = load_json(state, "sweep.json");
    check_json(root);
    json_decref(root);
    /* the first and the third curve are blue and green; two panels show them */
    assert_true(picture_find_colour(png, 0x1F, 0x70, 0xAD, &top, &bottom) > 200);
    assert_true(picture_find_colour(png, 0x21, 0x94, 0x70, &top, &bottom) > 200);
    assert_true(top < 0.4 && bottom > 0.5);
    free(json);
    free(png);
}

/* 14B fits nowhere, and is drawn. */
static void test_nothing_fits(void **state) {
    char *png = xprintf("%s/large.png", (char *)*state);
    double top, bottom;
    const char *words[] = {TMD_CONFIGS_DIR "/wan2.1-14b/stage2.yaml",
                           TABLES,
                           "--gpus",
                           "8,16",
                           "--scale",
                           "weak",
                           "--png",
                           png,
                           "data.files=[]"};
    assert_int_equal(run_plan(state, sizeof words / sizeof *words, words), EXIT_FAILED);
    expect_in_file(state, "out", ": weak scaling on H100");
    expect_in_file(state, "out", "  does not fit\n");
    expect_in_file(state, "out", "as configured: does not run: it takes ");
    assert_true(picture_find_colour(png, 0x1F, 0x70, 0xAD, &top, &bottom) > 200);
    free(png);
}

static void test_wrong_commands(void **state) {
    static const struct {
        const char *words[3], *message;
    } wrong[] = {
        {{"--sweep", "train.recomputes=full"}, "--sweep: override 'train.recomputes=full': "},
        {{"--sweep", "train.recompute=some"}, "--sweep: override 'train.recompute=some': "},
        {{"--sweep", "kd.skip_layers=[1]"}, "without blanks or brackets, got "},
        {{"--gpus", "64,8"}, "--gpus: expected a number"},
        {{"--gpus", "8", "--png=x.png"}, "--png draws how a run scales: expected --sweep or"},
        {{"--gpus", "8,16", "--png=nowhere/x.png"}, "nowhere/x.png"},
        {{"--gpus", "8,16", "--scale=up"}, "--scale: expected one of strong|weak, got 'up'"},
        {{"--gpus", "8,16", "model.num_heads=5"}, "model.num_heads"},
        {{"--gpus", "8,16", "--height=17"}, "/tiny/stage1.yaml: "},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *words[10] = {TINY, TABLES, "data.files=[]"};
        int n = 6;
        for (int k = 0; k < 3 && wrong[i].words[k]; k++) words[n++] = wrong[i].words[k];
        assert_int_equal(run_plan(state, n, words), EXIT_USER);
        expect_in_file(state, "error", wrong[i].message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combinations),
        cmocka_unit_test(test_wrong_keys),
        cmocka_unit_test(test_counts),
        cmocka_unit_test_setup_teardown(test_command, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_fits, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_commands, fixture_set_up, fixture_tear_down),
    };
    return cmocka_run_group_tests_name("plan_sweep_command", tests, NULL, NULL);
}
