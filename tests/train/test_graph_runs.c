/* Passes without gradient as CUDA graphs: runs and samplers compute the same bits as without, while
 * inputs, times and weights change from iteration to iteration.  TMD_TEST_ACT=f32 (default) or bf16
 * says what an Act is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/backend_cuda.h"
#include "learner_fixture.h"
#include "train/replay.h"

enum { ITERATIONS = 3 };

static struct Backend *open_backend(bool graphs) {
    const char *act = getenv("TMD_TEST_ACT");
    struct BackendCuda options = {.act_dtype = DTYPE_F32, .deterministic = true, .graphs = graphs};
    TMD_CHECK(!act || dtype_parse(act, &options.act_dtype), "TMD_TEST_ACT=%s", act);
    struct Backend *be;
    struct Error err;
    if (!backend_cuda_create(options, &be, &err)) fail_msg("%s", err.text);
    return be;
}

/* ---- training */

/* What iterations leave: the networks that they train, and the losses on the way. */
struct Outcome {
    float *weights[ROLE_COUNT];
    int64_t n_elems[ROLE_COUNT];
    double scalars[ITERATIONS][STEP_MAX_SCALARS];
    struct LearnedRegions graphs;
};

static struct Outcome train(const char *stage, enum StepKind kind, bool graphs) {
    /* few tokens, for an emulated device takes its time; all samples of stage one differentiated */
    const char *const overrides[] = {stage,
                                     "model.dim=32",
                                     "model.ffn_dim=48",
                                     "model.num_heads=2",
                                     "model.patch_size=[2, 4, 4]",
                                     "student.inner_steps=2",
                                     "stage1.tm_prob=0"};
    struct Run r;
    struct Outcome outcome = {0};
    run_init(&r, open_backend(graphs), overrides, sizeof overrides / sizeof *overrides);
    for (int64_t i = 0; i < ITERATIONS; i++) {
        struct StepScalar scalars[STEP_MAX_SCALARS];
        int n = run_iterate(&r, kind, i, scalars);
        for (int k = 0; k < n; k++) outcome.scalars[i][k] = scalars[k].value;
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(&r.learner, kind, (enum Role)role)) continue;
        const struct Weights *w = &r.learner.nets.weights[role];
        size_t n_bytes = (size_t)w->table->n_elems * sizeof(float);
        outcome.n_elems[role] = w->table->n_elems;
        outcome.weights[role] = xmalloc(n_bytes);
        r.be->download(r.be, outcome.weights[role], w->master, (int64_t)n_bytes);
    }
    outcome.graphs = r.be->learned(r.be);
    run_free(&r);
    return outcome;
}

static void outcome_free(struct Outcome *outcome) {
    for (int role = 0; role < ROLE_COUNT; role++) free(outcome->weights[role]);
}

/* Of the passes through blocks that keep nothing, so many per iteration, n_places differ in the
 * memory that they work on.  The first at each place is no graph's. */
static void check_same(const char *stage, enum StepKind kind, int n_passes, int n_places) {
    struct Outcome with = train(stage, kind, true), without = train(stage, kind, false);
    int n_networks = 0;
    assert_int_equal(without.graphs.n_launches, 0);
    assert_int_equal(with.graphs.n_kept, n_places);
    assert_int_equal(with.graphs.n_launches, n_passes * ITERATIONS - n_places);
    assert_memory_equal(with.scalars, without.scalars, sizeof with.scalars);
    assert_memory_not_equal(with.scalars[ITERATIONS - 2], with.scalars[ITERATIONS - 1],
                            sizeof with.scalars[0]);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!with.weights[role]) continue;
        n_networks++;
        assert_memory_equal(with.weights[role], without.weights[role],
                            (size_t)with.n_elems[role] * sizeof(float));
    }
    assert_true(n_networks > 0);
    outcome_free(&with);
    outcome_free(&without);
}

/* Teacher without text, fake score. */
static void test_student(void **state) {
    (void)state;
    check_same("train.stage=stage2", STEP_STUDENT, 2, 2);
}

/* Backbone, two passes of the head; the teacher's blocks for a fake and for a real video. */
static void test_critic(void **state) {
    (void)state;
    check_same("train.stage=stage2", STEP_CRITIC, 5, 4);
}

/* Backbone and head without text; the head at the two ends of the finite difference. */
static void test_stage1(void **state) {
    (void)state;
    check_same("train.stage=stage1", STEP_STAGE1, 4, 3);
}

/* ---- samplers */

static void sample(const char *name, bool graphs, struct TensorList *list, int64_t *n_launches) {
    struct Backend *be = open_backend(graphs);
    struct Error err;
    char *folder = xprintf("%s/%s", TMD_CASES_DIR, name);
    if (!replay_run(folder, be, list, &err)) fail_msg("%s", err.text);
    *n_launches = be->learned(be).n_launches;
    free(folder);
    be->destroy(be);
}

static void test_samplers(void **state) {
    (void)state;
    static const char *const cases[] = {"teacher_sample", "sample_m2n2"};
    for (int i = 0; i < 2; i++) {
        struct TensorList with = {0}, without = {0};
        int64_t n_with, n_without;
        sample(cases[i], true, &with, &n_with);
        sample(cases[i], false, &without, &n_without);
        assert_true(n_with > 0);
        assert_int_equal(n_without, 0);
        assert_int_equal(with.n, without.n);
        assert_true(with.n > 0);
        for (int k = 0; k < with.n; k++)
            assert_memory_equal(with.items[k].data, without.items[k].data,
                                (size_t)with.items[k].n_elems * sizeof(float));
        tensor_list_free(&with);
        tensor_list_free(&without);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_student),
        cmocka_unit_test(test_critic),
        cmocka_unit_test(test_stage1),
        cmocka_unit_test(test_samplers),
    };
    return cmocka_run_group_tests_name("graph_runs", tests, NULL, NULL);
}
