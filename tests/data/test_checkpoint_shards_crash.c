/* The folder of sharded checkpoints: whatever happens to a save (its ranks killed at any moment,
 * the disk full), the checkpoints before it stay usable, and what is left of it goes with the next
 * save. */
#include <dirent.h>
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

#include "check.h"
#include "checkpoint_fixture.h"
#include "data/checkpoint_folder.h"
#include "data/checkpoint_shard_file.h"
#include "scratch.h"

static int count_shard_folders(const char *folder) {
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        n += strstr(entry->d_name, ".shards-") != NULL;
    closedir(dir);
    return n;
}

static bool expect_intact(void *context, const char *path) {
    struct Error reason;
    (void)context;
    if (!ckpt_is_intact(path, 0, 1, &reason)) fail_msg("%s is damaged: %s", path, reason.text);
    return true;
}

/* The iteration of the newest checkpoint, which must be intact. */
static int64_t check_newest(const char *folder) {
    struct Error err;
    char *path;
    struct Ckpt *ckpt;
    check(ckpt_newest_valid(folder, &path, expect_intact, NULL, &err));
    assert_non_null(path);
    check(ckpt_open(path, &ckpt, &err));
    int64_t iteration = ckpt_iteration(ckpt);
    ckpt_close(ckpt);
    check(small_ckpt_read(path, iteration, &err));
    check(ckpt_rotate(folder, 2, 0, path, &err));
    free(path);
    return iteration;
}

/* One more save clears everything away that crashes left. */
static void check_clean_after_save(const char *folder, int64_t iteration) {
    struct CkptSave save = small_ckpt_save(folder, iteration, 1, 2);
    free(small_ckpt_make_sharded(&save));
    assert_int_equal(scratch_count(folder, ".partial"), 0);
    assert_int_equal(count_shard_folders(folder), scratch_count(folder, ".h5"));
    assert_int_equal(check_newest(folder), iteration);
}

/* ---- crashes ---- */

static pid_t fork_writer(const char *folder, int64_t newest, int n_shards) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    for (int64_t step = newest + 1;; step++) {
        struct Error err;
        struct CkptSave save = small_ckpt_save(folder, step, 1, n_shards);
        if (!small_ckpt_write_sharded(&save, &err)) _exit(1);
    }
}

static void wait_for_step(const char *folder, int64_t iteration) {
    char *path = ckpt_step_path(folder, iteration);
    for (int i = 0; i < 100000 && !scratch_exists(path); i++) usleep(200);
    free(path);
}

static void test_killed_at_random_times(void **state) {
    enum { KILLS = 50 };
    const char *folder = *state;
    int64_t newest = 0;
    int n_before = 0, n_after = 0;
    struct CkptSave first = small_ckpt_save(folder, newest, 1, 2);
    free(small_ckpt_make_sharded(&first));
    for (int kill_number = 0; kill_number < KILLS; kill_number++) {
        pid_t child = fork_writer(folder, newest, 1 + kill_number % 4);
        if (kill_number % 3 == 0) wait_for_step(folder, newest + 1);
        usleep((useconds_t)(kill_number * 7919 % 15000));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status)); /* it never stopped with an error */
        int64_t found = check_newest(folder);
        assert_true(found >= newest);
        *(found == newest ? &n_before : &n_after) += 1;
        newest = found;
    }
    assert_true(n_before > 0 && n_after > 0); /* the kills hit different moments */
    check_clean_after_save(folder, newest + 1);
}

/* The kernel ends the process in the midst of the write that would make a file longer than `limit`:
 * in a shard, or in the master. */
static void test_killed_within_a_write(void **state) {
    const char *folder = *state;
    struct CkptSave first = small_ckpt_save(folder, 1, 0, 2);
    free(small_ckpt_make_sharded(&first));
    int n_killed = 0;
    for (size_t limit = 0; limit < 120000; limit += 3001) {
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct Error err;
            struct CkptSave save = small_ckpt_save(folder, 2, 0, 2);
            scratch_limit_files(limit);
            signal(SIGXFSZ, SIG_DFL);
            _exit(small_ckpt_write_sharded(&save, &err) ? 0 : 1);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFEXITED(status)) { /* the limit was beyond the longest file */
            assert_int_equal(WEXITSTATUS(status), 0);
            break;
        }
        assert_int_equal(WTERMSIG(status), SIGXFSZ);
        assert_int_equal(check_newest(folder), 1);
        n_killed++;
    }
    assert_true(n_killed > 10);
    assert_int_equal(check_newest(folder), 2);
    check_clean_after_save(folder, 3);
}

/* Between the steps of a save; of an iteration that has a checkpoint already, too: that one stays.
 */
static void test_stopped_between_the_steps(void **state) {
    enum { N_SHARDS = 3 };
    struct Error err;
    struct CkptWriter *w;
    struct CkptSave first = small_ckpt_save(*state, 1, 1, 2);
    free(small_ckpt_make_sharded(&first));
    for (int64_t iteration = 1; iteration <= 2; iteration++) {
        for (int n_done = 0; n_done <= N_SHARDS; n_done++) {
            struct CkptSave save = small_ckpt_save(*state, iteration, 1, N_SHARDS);
            for (int s = 0; s < n_done; s++) check(small_ckpt_write_shard(&save, s, &err));
            if (n_done == N_SHARDS) {
                check(ckpt_master_open(&save, &w, &err));
                assert_int_equal(check_newest(*state), 1);
                ckpt_writer_abandon(w);
            } else {
                check(ckpt_shard_open(&save, n_done, &w, &err));
                assert_int_equal(check_newest(*state), 1);
                check(ckpt_writer_commit(w, &err)); /* without its tensors */
            }
            assert_int_equal(check_newest(*state), 1);
        }
    }
    /* a save of the same iteration takes the place of the old one, whose shards go with the next */
    struct CkptSave again = small_ckpt_save(*state, 1, 1, N_SHARDS);
    char *path = small_ckpt_make_sharded(&again);
    assert_int_equal(count_shard_folders(*state), 2);
    check(small_ckpt_read(path, 1, &err));
    free(path);
    check_clean_after_save(*state, 2);
    free(small_ckpt_make(*state, 1, 1)); /* likewise of an unsharded one */
    free(small_ckpt_make(*state, 2, 1));
    free(small_ckpt_make(*state, 3, 1));
    assert_int_equal(count_shard_folders(*state), 0);
}

/* ---- a full disk ---- */

/* In a process of its own, which must get through its normal end, too: fails to write step 2, then,
 * with room again, writes step 3. */
static _Noreturn void run_out_of_disk(const char *folder, size_t limit) {
    struct Error err = {0};
    struct CkptSave full = small_ckpt_save(folder, 2, 0, 2),
                    later = small_ckpt_save(folder, 3, 0, 2);
    scratch_limit_files(limit);
    bool written = small_ckpt_write_sharded(&full, &err);
    scratch_lift_limit();
    bool named = strstr(err.text, "File too large") && !strchr(err.text, '\n');
    bool nothing_left = count_shard_folders(folder) == 1 && scratch_count(folder, ".partial") == 0;
    bool goes_on = small_ckpt_write_sharded(&later, &err);
    exit(!written && named && nothing_left && goes_on ? 42 : 1);
}

static void test_full_disk(void **state) {
    const char *folder = *state;
    struct Error err;
    size_t n_longest;
    struct CkptSave first = small_ckpt_save(folder, 1, 0, 2);
    free(small_ckpt_make_sharded(&first));
    char *shard = ckpt_shard_path(&first, 1); /* the longest file */
    free(scratch_read(shard, &n_longest));
    free(shard);
    for (size_t limit = 0; limit < n_longest; limit += n_longest / 11) {
        assert_int_equal(scratch_exit_code_of(run_out_of_disk, folder, limit), 42);
        assert_int_equal(check_newest(folder), 3);
        char *path = ckpt_step_path(folder, 1), *later = ckpt_step_path(folder, 3);
        check(small_ckpt_read(path, 1, &err));
        scratch_remove_file(later);
        free(later);
        free(path);
    }
}

/* ---- what may be removed ---- */

static void test_rotation_takes_the_shards(void **state) {
    struct Error err;
    for (int i = 1; i <= 5; i++) {
        struct CkptSave save = small_ckpt_save(*state, 10 * i, 1, 2);
        char *path = small_ckpt_make_sharded(&save);
        if (i == 5) check(ckpt_rotate(*state, 2, 30, path, &err)); /* 30, 40, 50 stay */
        free(path);
    }
    assert_int_equal(scratch_count(*state, ".h5"), 3);
    assert_int_equal(count_shard_folders(*state), 3);
    assert_int_equal(check_newest(*state), 50);
}

static void test_sweeping_spares_what_is_not_garbage(void **state) {
    struct Error err;
    struct CkptSave live = small_ckpt_save(*state, 2, 1, 2),
                    saved = small_ckpt_save(*state, 1, 1, 2);
    char *master = small_ckpt_make_sharded(&saved);
    check(small_ckpt_write_shard(&live, 1, &err));
    char *elsewhere = scratch_path(*state, "elsewhere");
    char *inside = scratch_path(elsewhere, "rank-000-of-002.h5");
    char *link = scratch_path(*state, "step-00000009.shards-0123456789abcdef");
    char *stranger = scratch_path(*state, "step-00000009.shards-mine");
    scratch_make_folder(elsewhere);
    scratch_make_folder(stranger);
    scratch_write(inside, "x", 1);
    assert_int_equal(symlink(elsewhere, link), 0);

    ckpt_folder_sweep(*state, live.id);
    char *shard = ckpt_shard_path(&live, 1);
    assert_true(scratch_exists(shard));
    assert_true(scratch_exists(inside));
    assert_true(scratch_exists(stranger));
    check(small_ckpt_read(master, 1, &err));
    ckpt_folder_sweep(*state, -1);
    assert_false(scratch_exists(shard));
    check(small_ckpt_read(master, 1, &err));

    scratch_write(master, "damaged", 7); /* someone may still want to save what can be saved */
    ckpt_folder_sweep(*state, -1);
    char *kept = ckpt_shard_path(&saved, 1);
    assert_true(scratch_exists(kept));
    free(kept);
    free(shard);
    free(stranger);
    free(link);
    free(inside);
    free(elsewhere);
    free(master);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_killed_at_random_times),
        WITH_FOLDER(test_killed_within_a_write),
        WITH_FOLDER(test_stopped_between_the_steps),
        WITH_FOLDER(test_full_disk),
        WITH_FOLDER(test_rotation_takes_the_shards),
        WITH_FOLDER(test_sweeping_spares_what_is_not_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
