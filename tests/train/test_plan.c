/* The plan of Wan2.1's two sizes against the sums one does by hand, and the command.
 * TMD_CONFIGS_DIR is the folder configs/. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config_fixture.h"
#include "data/json_file.h"
#include "plan_command.h"
#include "plan_fixture.h"

/* ---- flops of a whole step, by hand */

/* Terms of products (a flop and a half each are two), from the shapes alone. */
struct ByHand {
    double blocks, scores; /* of all blocks' forward; of them, those that make attention's scores */
    double outside;        /* forward around the blocks */
    double no_input;       /* of these, layers whose input needs no gradient */
};

static struct ByHand count_by_hand(const struct ModelConfig *c, double tokens) {
    double d = (double)c->dim, f = (double)c->ffn_dim, text = (double)c->text_len;
    double layers = (double)c->num_layers, attention = 2.0 * tokens * (tokens + text) * d;
    double linear = tokens * (6.0 * d * d + 2.0 * d * f) + text * 2.0 * d * d;
    double patch = (double)(c->in_dim * c->patch_size[0] * c->patch_size[1] * c->patch_size[2]);
    double embed = tokens * patch * d + text * (double)c->text_dim * d + (double)c->freq_dim * d;
    return (struct ByHand){.blocks = layers * (attention + linear),
                           .scores = 0.5 * layers * attention,
                           .outside = embed + tokens * patch * d + text * d * d + 7.0 * d * d,
                           .no_input = embed};
}

static void check_teacher_step(const char *path, double forward_peta) {
    static const char *const overrides[] = {"train.stage=teacher", "train.global_batch=2",
                                            "train.micro_batch=1", NULL};
    static const struct VideoShape full = {.frames = 21, .height = 60, .width = 104};
    struct Config config;
    struct Error err;
    struct PlanTarget target = simple_target(1, full, DTYPE_BF16);
    config_init(&config);
    if (!config_load(&config, path, &err)) fail_msg("%s", err.text);
    override_all(&config, overrides);
    struct ByHand n = count_by_hand(&config.model, 32760.0);
    double forward = 2.0 * (n.blocks + n.outside);
    assert_true(fabs(1e-15 * forward - forward_peta) < 0.0005 * forward_peta);

    double model = 2.0 * (3.0 * forward - 2.0 * n.no_input); /* two samples */
    double again = 2.0 * 2.0 * n.blocks, scores = 2.0 * 2.0 * n.scores;
    for (int recompute = 0; recompute < 2; recompute++) {
        config.train.recompute = recompute ? RECOMPUTE_FULL : RECOMPUTE_NONE;
        struct PlanStep step = plan_step_make(&config, &target, STEP_TEACHER);
        struct OpTally whole = op_tally_total(step.ops);
        /* all are sums of integers below 2^53 */
        assert_true(step.model_flops == model);
        assert_true(whole.flops == model + scores + (recompute ? again : 0.0));
        assert_true(step.phases[PLAN_FORWARD].flops == 2.0 * forward);
        assert_true(step.phases[PLAN_AGAIN].flops == (recompute ? again : 0.0));
        assert_true(step.phases[PLAN_BACKWARD].flops == model + scores - 2.0 * forward);
        assert_int_equal(step.traffic.messages, 0);
    }
    config_free(&config);
}

static void test_flops_1_3b(void **state) {
    (void)state;
    check_teacher_step(TMD_CONFIGS_DIR "/wan2.1-1.3b/stage1.yaml", 0.2830);
}

static void test_flops_14b(void **state) {
    (void)state;
    check_teacher_step(TMD_CONFIGS_DIR "/wan2.1-14b/stage1.yaml", 1.6784);
}

/* ---- the command */

static void test_command(void **state) {
    const char *stage1 = TMD_CONFIGS_DIR "/tiny/stage1.yaml";
    const char *stage2 = TMD_CONFIGS_DIR "/tiny/stage2.yaml";
    char *json = xprintf("%s/plan.json", (char *)*state);
    const char *good[] = {stage1,        stage2,     "--gpu",  GPU_TABLE,  "--network",
                          NETWORK_TABLE, "--frames", "4",      "--height", "16",
                          "--width",     "16",       "--json", json,       "data.files=[]"};
    assert_int_equal(run_plan(state, 15, good), EXIT_OK);
    expect_in_file(state, "out", "latents of 3 x 4 x 16 x 16, 64 tokens (as the flags say)");
    expect_in_file(state, "out", "student step: 200 of the 1000 iterations");
    expect_in_file(state, "out", "all 2 stages: ");
    struct Error err;
    json_t *root = json_file_load(json, &err);
    if (!root) fail_msg("%s", err.text);
    assert_int_equal(json_array_size(root), 2);
    json_t *plan = json_array_get(root, 1), *steps = json_object_get(plan, "steps");
    assert_int_equal(json_array_size(steps), 2);
    assert_true(json_is_true(json_object_get(plan, "fits")));
    assert_true(json_real_value(json_object_get(plan, "run_seconds")) > 0.0);
    json_decref(root);
    free(json);

    const char *large[] = {TMD_CONFIGS_DIR "/wan2.1-14b/stage2.yaml",
                           "data.files=[]",
                           "--gpu",
                           GPU_TABLE,
                           "--network",
                           NETWORK_TABLE};
    assert_int_equal(run_plan(state, 6, large), EXIT_FAILED);
    expect_in_file(state, "out", "DOES NOT FIT");
    expect_in_file(state, "out", "(assumed, for the data is not there: 81 frames of 480 x 832)");

    const char *unknown[] = {stage1, "--gpu", "h300", "--tables", "nowhere"};
    assert_int_equal(run_plan(state, 5, unknown), EXIT_USER);
    expect_in_file(state, "error", "--gpu h300: nowhere/gpu/h300.yaml: cannot be opened: ");
    const char *none[] = {"data.files=[]", "--gpu", GPU_TABLE, "--network", NETWORK_TABLE};
    assert_int_equal(run_plan(state, 5, none), EXIT_USER);
    expect_in_file(state, "error", "expected the path of a configuration, got overrides alone");
    const char *precise[] = {stage1,    "data.files=[]", "device.precision=f32", "--gpu",
                             GPU_TABLE, "--network",     NETWORK_TABLE};
    assert_int_equal(run_plan(state, 7, precise), EXIT_USER);
    expect_in_file(state, "error", "device.precision is f32, but the tables of machines tell");
    const char *uneven[] = {stage1,      "data.files=[]", "--gpu",    GPU_TABLE,
                            "--network", NETWORK_TABLE,   "--height", "17"};
    assert_int_equal(run_plan(state, 8, uneven), EXIT_USER);
    expect_in_file(state, "error", "/tiny/stage1.yaml: ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flops_1_3b),
        cmocka_unit_test(test_flops_14b),
        cmocka_unit_test_setup_teardown(test_command, fixture_set_up, fixture_tear_down),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
