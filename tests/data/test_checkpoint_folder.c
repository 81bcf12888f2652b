/* The folder of a run's checkpoints: whatever happens to the one that is being written (its writer
 * killed, the disk full), those before it stay usable and the newest good one is found. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint_fixture.h"
#include "data/checkpoint_folder.h"
#include "scratch.h"

/* ---- crashes ---- */

static bool expect_intact(void *context, const char *path) {
    struct Error reason;
    (void)context;
    if (!ckpt_is_intact(path, 0, 1, &reason)) fail_msg("%s is damaged: %s", path, reason.text);
    return true;
}

static void test_killed_writers(void **state) {
    enum { KILLS = 50 };
    const char *folder = *state;
    int64_t newest = 0;
    int n_before = 0, n_after = 0;
    free(small_ckpt_make(folder, newest, 1));
    for (int kill_number = 0; kill_number < KILLS; kill_number++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct Error err;
            for (int64_t step = newest + 1;; step++) {
                if (!small_ckpt_write(folder, step, 1, &err)) _exit(1);
            }
        }
        usleep((useconds_t)(kill_number * 7919 % 15000));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status)); /* it never stopped with an error */

        struct Error err;
        char *path;
        if (!ckpt_newest_valid(folder, &path, expect_intact, NULL, &err)) fail_msg("%s", err.text);
        assert_non_null(path);
        struct Ckpt *ckpt;
        assert_true(ckpt_open(path, &ckpt, &err));
        assert_true(ckpt_iteration(ckpt) >= newest);
        *(ckpt_iteration(ckpt) == newest ? &n_before : &n_after) += 1;
        newest = ckpt_iteration(ckpt);
        ckpt_close(ckpt);
        assert_true(small_ckpt_read(path, newest, &err));
        assert_true(ckpt_rotate(folder, 2, 0, path, &err));
        free(path);
    }
    assert_true(n_before > 0 && n_after > 0); /* the kills hit different moments */
    free(small_ckpt_make(folder, newest + 1, 1));
    assert_int_equal(scratch_count(folder, ".partial"), 0);
}

/* In a process of its own, which must get through its normal end, too: fails to write step 2, then,
 * with room again, writes step 3. */
static _Noreturn void run_out_of_disk(const char *folder, size_t limit) {
    struct Error err = {0};
    scratch_limit_files(limit);
    bool written = small_ckpt_write(folder, 2, 0, &err);
    scratch_lift_limit();
    bool named = strstr(err.text, "File too large") && !strchr(err.text, '\n');
    bool goes_on = small_ckpt_write(folder, 3, 0, &err);
    exit(!written && named && goes_on ? 42 : 1);
}

static void test_full_disk(void **state) {
    const char *folder = *state;
    char path[256], later[256]; /* not on the heap: children would leak it */
    struct Error err;
    size_t n_whole;
    snprintf(path, sizeof path, "%s/step-00000001.h5", folder);
    snprintf(later, sizeof later, "%s/step-00000003.h5", folder);
    free(small_ckpt_make(folder, 1, 0));
    free(scratch_read(path, &n_whole));
    for (size_t limit = 0; limit < n_whole; limit += n_whole / 7) {
        assert_int_equal(scratch_exit_code_of(run_out_of_disk, folder, limit), 42);
        assert_int_equal(scratch_count(folder, ".partial"), 0);
        assert_int_equal(scratch_count(folder, ".h5"), 2);
        assert_true(small_ckpt_read(path, 1, &err));
        assert_true(small_ckpt_read(later, 3, &err));
        unlink(later);
    }
}

/* ---- the folder ---- */

static bool count_skip(void *context, const char *path) {
    struct Error reason = {0};
    bool intact = ckpt_is_intact(path, 0, 1, &reason);
    assert_true(strstr(path, "step-") && (intact || reason.text[0]));
    *(int *)context += !intact;
    return intact;
}

static void damage(const char *path) {
    size_t n_bytes;
    unsigned char *bytes = scratch_read(path, &n_bytes);
    scratch_write(path, bytes, n_bytes / 2);
    free(bytes);
}

static void test_newest_valid(void **state) {
    struct Error err;
    int n_skipped = 0;
    char *path, *missing = scratch_path(*state, "missing");
    assert_true(ckpt_newest_valid(missing, &path, count_skip, &n_skipped, &err));
    assert_null(path);
    assert_true(ckpt_newest_valid(*state, &path, count_skip, &n_skipped, &err));
    assert_null(path);
    free(missing);

    char *first = small_ckpt_make(*state, 90, 1), *second = small_ckpt_make(*state, 100, 1);
    char *third = small_ckpt_make(*state, 123456789, 1); /* nine digits: newer than 00000100 */
    damage(third);
    damage(second);
    assert_true(ckpt_newest_valid(*state, &path, count_skip, &n_skipped, &err));
    assert_string_equal(path, first);
    assert_int_equal(n_skipped, 2);
    free(path);
    damage(first);
    assert_false(ckpt_newest_valid(*state, &path, count_skip, &n_skipped, &err));
    assert_names(&err, "3 checkpoints");
    free(first);
    free(second);
    free(third);
}

static void test_rotation(void **state) {
    struct Error err;
    char *paths[7];
    for (int i = 1; i <= 6; i++) paths[i] = small_ckpt_make(*state, 10 * i, 1);
    char *bystander = scratch_path(*state, "step-final.h5");
    scratch_write(bystander, "x", 1);
    assert_true(ckpt_rotate(*state, 2, 30, paths[6], &err));
    for (int i = 1; i <= 6; i++) assert_int_equal(scratch_exists(paths[i]), i == 3 || i >= 5);
    assert_true(scratch_exists(bystander));

    damage(paths[6]);
    damage(paths[5]);
    assert_true(ckpt_rotate(*state, 1, 0, paths[3], &err)); /* only step 30 is intact: it must stay */
    assert_true(scratch_exists(paths[3]));
    assert_false(scratch_exists(paths[5]));
    assert_true(scratch_exists(paths[6]));
    for (int i = 1; i <= 6; i++) free(paths[i]);
    free(bystander);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_killed_writers),
        WITH_FOLDER(test_full_disk),
        WITH_FOLDER(test_newest_valid),
        WITH_FOLDER(test_rotation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
