/* Saving beside the steps: a checkpoint holds what the run was when its save began, however late
 * the copy arrives and whatever the run has become by then.  TMD_TEST_ACT as in learner_fixture.h;
 * on the CPU the copies are made to arrive late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "data/checkpoint_folder.h"
#include "late_backend.h"
#include "learner_fixture.h"
#include "train/run_save.h"

enum { MAX_ARRAYS = ROLE_COUNT * ROLE_MAX_ARRAYS };

struct Case {
    struct LateBackend late;
    bool is_late; /* the run is on `late` */
    struct Run run;
    struct Comm *ranks;
    struct RunSaver *saver;
    struct RunState state; /* that of the last save */
    float *expected[MAX_ARRAYS];
};

static struct Backend *make_late(struct Case *c, bool pins) {
    struct Backend *be = run_open_backend();
    c->is_late = strcmp(be->name, "cpu") == 0;
    if (!c->is_late) return be;
    late_backend_init(&c->late, be);
    c->late.pins = pins;
    return &c->late.table;
}

/* The tiniest networks, for an emulated device takes its time. */
static void case_init(struct Case *c, const char *folder, bool pins) {
    struct Error err;
    struct RankGrid grid = rank_grid_alone();
    *c = (struct Case){.ranks = comm_self_create(NULL)};
    char *checkpoints = scratch_path(folder, "checkpoints");
    char *out = xprintf("out=%s", folder);
    const char *const overrides[] = {"train.stage=stage1", "model.dim=24", "model.ffn_dim=32",
                                     "model.num_heads=2", "optimizer.lr=0.01", out};
    scratch_make_folder(checkpoints);
    run_init(&c->run, make_late(c, pins), overrides, sizeof overrides / sizeof *overrides);
    if (!run_saver_open(&c->saver, &c->run.learner.nets, c->ranks, &grid, &err))
        fail_msg("%s", err.text);
    free(checkpoints);
    free(out);
}

static void case_free(struct Case *c) {
    run_saver_close(c->saver);
    if (c->is_late) assert_int_equal(c->late.n_pinned, 0);
    run_free(&c->run);
    c->ranks->destroy(c->ranks);
    for (int i = 0; i < MAX_ARRAYS; i++) free(c->expected[i]);
}

static void iterate(struct Case *c) {
    struct StepScalar scalars[STEP_MAX_SCALARS];
    run_iterate(&c->run, STEP_STAGE1, c->state.iteration, scalars);
}

/* ---- what a checkpoint must hold ---- */

static bool is_saved(const struct Case *c, int role) {
    return c->run.learner.nets.plan.trained[role];
}

static void remember(struct Case *c) {
    const struct Backend *be = c->run.be;
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct RoleArray arrays[ROLE_MAX_ARRAYS];
        const struct Weights *w = &c->run.learner.nets.weights[role];
        int64_t n_bytes = w->n_elems * (int64_t)sizeof(float);
        int n = is_saved(c, role) ? role_arrays(w, arrays) : 0;
        for (int i = 0; i < n; i++) {
            float **expected = &c->expected[role * ROLE_MAX_ARRAYS + i];
            *expected = xrealloc(*expected, (size_t)n_bytes);
            be->download(be, *expected, arrays[i].data, n_bytes);
        }
    }
}

static void check_array(struct Ckpt *ckpt, const struct Weights *w, const char *group,
                        const float *expected) {
    struct Error err;
    float *got = xmalloc((size_t)params_largest(w->table) * sizeof *got);
    for (int p = 0; p < w->table->n_params; p++) {
        const struct ParamDesc *param = &w->table->params[p];
        if (!ckpt_read_f32(ckpt, group, param->name, param->n_dims, param->shape, true, got, &err))
            fail_msg("%s", err.text);
        assert_memory_equal(got, expected + weights_own(w, p).at,
                            (size_t)param->n_elems * sizeof *got);
    }
    free(got);
}

/* The newest checkpoint is what was remembered. */
static void check_saved(const struct Case *c) {
    struct Error err;
    struct Ckpt *ckpt;
    int n_checked = 0;
    char *folder = run_checkpoint_folder(&c->run.config);
    char *path = ckpt_step_path(folder, c->state.iteration);
    if (!ckpt_open(path, &ckpt, &err)) fail_msg("%s", err.text);
    assert_int_equal(ckpt_iteration(ckpt), c->state.iteration);
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct RoleArray arrays[ROLE_MAX_ARRAYS];
        const struct Weights *w = &c->run.learner.nets.weights[role];
        int n = is_saved(c, role) ? role_arrays(w, arrays) : 0;
        for (int i = 0; i < n; i++, n_checked++) {
            char *group = xprintf("%s/%s", role_name((enum Role)role), arrays[i].kind);
            check_array(ckpt, w, group, c->expected[role * ROLE_MAX_ARRAYS + i]);
            free(group);
        }
    }
    assert_int_equal(n_checked, 4); /* one role, with its average */
    ckpt_close(ckpt);
    free(path);
    free(folder);
}

/* ---- saves ---- */

static void begin(struct Case *c) {
    c->state.iteration++;
    remember(c);
    run_saver_begin(c->saver, &c->state);
    if (c->is_late) assert_true(late_backend_under_way(&c->late) && run_saver_busy(c->saver));
}

/* By now everything has arrived, early enough or not. */
static void finish(struct Case *c) {
    int exit_code;
    if (c->is_late) late_backend_arrive(&c->late, 0);
    assert_true(run_saver_finish(c->saver, &exit_code));
    assert_false(run_saver_busy(c->saver));
}

static void check_steps_go_on(struct Case *c) {
    for (int save = 0; save < 2; save++) {
        iterate(c);
        learner_take_copy_wait(&c->run.learner);
        begin(c);
        iterate(c);
        finish(c);
        check_saved(c);
        double held = learner_take_copy_wait(&c->run.learner);
        if (c->is_late) assert_true(held >= 1e-3 * LATE_MILLISECONDS);
        assert_true(learner_take_copy_wait(&c->run.learner) == 0.0);
    }
    float *then = c->expected[ROLE_STUDENT * ROLE_MAX_ARRAYS];
    size_t n_bytes = (size_t)c->run.learner.nets.weights[ROLE_STUDENT].n_elems * sizeof *then;
    float *copy = memcpy(xmalloc(n_bytes), then, n_bytes);
    remember(c);
    assert_memory_not_equal(c->expected[ROLE_STUDENT * ROLE_MAX_ARRAYS], copy, n_bytes);
    free(copy);
}

static void test_steps_go_on(void **state) {
    struct Case c;
    case_init(&c, *state, true);
    check_steps_go_on(&c);
    case_free(&c);
}

/* An emulated device is told by its environment to pin nothing, in all these tests. */
static void test_without_pinned_memory(void **state) {
    struct Case c;
    if (getenv("TMD_TEST_ACT")) skip();
    case_init(&c, *state, false);
    check_steps_go_on(&c);
    case_free(&c);
}

static void *arrive_later(void *context) {
    late_backend_arrive(context, LATE_MILLISECONDS);
    return NULL;
}

/* The end of a run: there is no update to wait for the copy, and whoever completes the save does;
 * or, when the run has failed otherwise, whoever ends it. */
static void check_end(struct Case *c, bool completes) {
    pthread_t thread;
    int exit_code;
    iterate(c);
    begin(c);
    if (c->is_late) assert_int_equal(pthread_create(&thread, NULL, arrive_later, &c->late), 0);
    if (completes) {
        assert_true(run_saver_finish(c->saver, &exit_code));
        check_saved(c);
    } else {
        run_saver_close(c->saver);
        c->saver = NULL;
    }
    if (c->is_late) assert_false(late_backend_under_way(&c->late));
    if (c->is_late) pthread_join(thread, NULL);
}

static void test_the_end_waits(void **state) {
    for (int completes = 0; completes < 2; completes++) {
        struct Case c;
        char *folder = scratch_path(*state, completes ? "completed" : "broken off");
        scratch_make_folder(folder);
        case_init(&c, folder, true);
        check_end(&c, completes);
        case_free(&c);
        free(folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_steps_go_on),
        WITH_FOLDER(test_without_pinned_memory),
        WITH_FOLDER(test_the_end_waits),
    };
    return cmocka_run_group_tests_name("save", tests, NULL, NULL);
}
