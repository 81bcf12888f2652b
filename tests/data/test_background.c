/* Work in the background: results come back in order, waiting waits, and a checkpoint can be saved
 * beside a thread that reads another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "check.h"
#include "checkpoint_fixture.h"
#include "data/background.h"
#include "data/checkpoint_folder.h"
#include "scratch.h"

struct Job {
    atomic_bool may_end;
    int n_runs;
    bool fails;
};

static bool run_job(void *context, struct Error *err) {
    struct Job *job = context;
    while (!atomic_load(&job->may_end)) usleep(100);
    job->n_runs++;
    return !job->fails || error_set(err, "job %d failed", job->n_runs);
}

static void test_results(void **state) {
    (void)state;
    struct Error err;
    struct Job good = {.may_end = true}, bad = {.may_end = true, .fails = true};
    struct Background *background = background_open(&err);
    assert_non_null(background);
    assert_true(background_is_idle(background));
    check(background_wait(background, &err)); /* for nothing */
    for (int i = 1; i <= 3; i++) {
        background_submit(background, run_job, &good);
        check(background_wait(background, &err));
        assert_int_equal(good.n_runs, i);
        background_submit(background, run_job, &bad);
        check_error(background_wait(background, &err), "failed");
        assert_int_equal(bad.n_runs, i);
        check(background_wait(background, &err)); /* a result is given once */
    }
    background_close(background);
    background_close(NULL);
}

static void test_work_runs_beside(void **state) {
    (void)state;
    struct Error err;
    struct Job job = {.may_end = false};
    struct Background *background = background_open(&err);
    assert_non_null(background);
    background_submit(background, run_job, &job);
    assert_false(background_is_idle(background)); /* and this thread goes on */
    atomic_store(&job.may_end, true);
    while (!background_is_idle(background)) usleep(100);
    check(background_wait(background, &err));
    assert_int_equal(job.n_runs, 1);

    atomic_store(&job.may_end, false);
    background_submit(background, run_job, &job);
    atomic_store(&job.may_end, true);
    background_close(background); /* ends what is under way */
    assert_int_equal(job.n_runs, 2);
}

struct Saves {
    const char *folder;
    int n;
};

static bool save_some(void *context, struct Error *err) {
    const struct Saves *saves = context;
    for (int i = 1; i <= saves->n; i++) {
        struct CkptSave save = small_ckpt_save(saves->folder, i, 1, 2);
        if (!small_ckpt_write_sharded(&save, err)) return false;
    }
    return true;
}

static void test_saving_beside_reading(void **state) {
    enum { N_SAVES = 20 };
    struct Error err;
    struct Saves saves = {*state, N_SAVES};
    char *path = small_ckpt_make(*state, 0, 1);
    struct Background *background = background_open(&err);
    assert_non_null(background);
    background_submit(background, save_some, &saves);
    int n_read = 0;
    for (; n_read == 0 || !background_is_idle(background); n_read++)
        check(small_ckpt_read(path, 0, &err));
    check(background_wait(background, &err));
    background_close(background);
    free(path);
    for (int i = 1; i <= N_SAVES; i++) {
        path = ckpt_step_path(*state, i);
        check(small_ckpt_read(path, i, &err));
        free(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_work_runs_beside),
        WITH_FOLDER(test_saving_beside_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
