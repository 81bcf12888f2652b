/* The file of measured matrix products: what is stored comes back, in this run and the next;
 * damage, folders that cannot be written and other processes do no harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "error.h"
#include "kernels/cuda/gemm_cache.h"
#include "scratch.h"

enum { VERSION = 130100, KEYS = 5 };
static const char device[] = "Imaginary GPU (80 GB)";
static const char file_name[] = "gemm-Imaginary-GPU--80-GB--130100.txt";

/* A different algorithm for each seed. */
static struct GemmChoice choice_of(int seed) {
    struct GemmChoice choice = {.fused = seed % 3 != 0, .microseconds = 12.5f + (float)seed};
    for (int i = 0; i < 8 && choice.fused; i++)
        choice.algo.data[i] = 0x9e3779b97f4a7c15u * (uint64_t)(8 * seed + i + 1);
    return choice;
}

static void store(struct GemmCache *cache, int key, int seed) {
    struct GemmChoice choice = choice_of(seed);
    char *name = xprintf("bias m=%d n=36 k=37 a=bf16 b=bf16^T c=bf16 align=16", key);
    gemm_cache_lock(cache);
    gemm_cache_store(cache, name, &choice);
    gemm_cache_unlock(cache);
    free(name);
}

/* Whether the key is there; then it has to be the choice of that seed. */
static bool finds(struct GemmCache *cache, int key, int seed) {
    struct GemmChoice expected = choice_of(seed), got;
    char *name = xprintf("bias m=%d n=36 k=37 a=bf16 b=bf16^T c=bf16 align=16", key);
    bool found = gemm_cache_find(cache, name, &got);
    free(name);
    if (!found) return false;
    assert_int_equal(got.fused, expected.fused);
    assert_float_equal(got.microseconds, expected.microseconds, 0.0);
    assert_memory_equal(&got.algo, &expected.algo, sizeof got.algo);
    return true;
}

static int set_folder(void **state) {
    *state = scratch_make();
    return setenv("TMD_CACHE_DIR", *state, 1);
}

static int remove_folder(void **state) {
    scratch_remove(*state);
    return 0;
}

/* A cache with KEYS lines. */
static struct GemmCache *filled_cache(void) {
    struct GemmCache *cache = gemm_cache_open(device, VERSION);
    for (int key = 0; key < KEYS; key++) store(cache, key, key);
    return cache;
}

static void test_round_trip(void **state) {
    struct GemmCache *cache = gemm_cache_open(device, VERSION);
    assert_false(finds(cache, 0, 0));
    gemm_cache_close(cache);

    cache = filled_cache();
    for (int key = 0; key < KEYS; key++) assert_true(finds(cache, key, key));
    assert_false(finds(cache, KEYS, 0));
    store(cache, 1, 7); /* takes the old line's place */
    gemm_cache_close(cache);

    cache = gemm_cache_open(device, VERSION);
    for (int key = 0; key < KEYS; key++) assert_true(finds(cache, key, key == 1 ? 7 : key));
    gemm_cache_close(cache);
    char *path = scratch_path(*state, file_name);
    assert_true(scratch_exists(path));
    free(path);

    cache = gemm_cache_open(device, VERSION + 1); /* another library's algorithms */
    assert_false(finds(cache, 0, 0));
    gemm_cache_close(cache);
}

static void test_home(void **state) {
    assert_int_equal(unsetenv("TMD_CACHE_DIR"), 0);
    assert_int_equal(setenv("HOME", *state, 1), 0);
    gemm_cache_close(filled_cache());
    char *path = xprintf("%s/.cache/tmd/%s", (char *)*state, file_name);
    assert_true(scratch_exists(path));
    free(path);
}

/* What stderr gets while it is captured. */
struct Capture {
    int saved;
    FILE *file;
};

static struct Capture capture_begin(void) {
    struct Capture capture = {dup(STDERR_FILENO), tmpfile()};
    assert_non_null(capture.file);
    fflush(stderr);
    assert_true(dup2(fileno(capture.file), STDERR_FILENO) >= 0);
    return capture;
}

/* How many lines there were. */
static int capture_end(struct Capture capture) {
    fflush(stderr);
    assert_true(dup2(capture.saved, STDERR_FILENO) >= 0);
    close(capture.saved);
    rewind(capture.file);
    int n_lines = 0;
    for (int c; (c = fgetc(capture.file)) != EOF;) n_lines += c == '\n';
    fclose(capture.file);
    return n_lines;
}

/* The file with one thing wrong; `line` counts products. */
static void damage(const char *folder, int line, void (*harm)(char *line, size_t n_chars)) {
    char *path = scratch_path(folder, file_name);
    size_t n_bytes;
    char *text = (char *)scratch_read(path, &n_bytes), *at = text;
    for (int i = 0; i < line || *at == '#'; at = strchr(at, '\n') + 1) i += *at != '#';
    harm(at, (size_t)(strchr(at, '\n') - at));
    scratch_write(path, text, n_bytes);
    free(text);
    free(path);
}

static void flip_digit_of_algorithm(char *line, size_t n_chars) {
    char *digit = line + n_chars - 40; /* before the separator and the 16 digits of the check */
    *digit = *digit == '7' ? '8' : '7';
}

static void change_key(char *line, size_t n_chars) {
    (void)n_chars;
    *strchr(line, 'm') = 'n';
}

static void replace_by_prose(char *line, size_t n_chars) {
    memset(line, 'x', n_chars);
}

static void empty(char *line, size_t n_chars) {
    memset(line, ' ', n_chars);
}

static void replace_by_separators(char *line, size_t n_chars) {
    for (size_t i = 0; i < n_chars; i++) line[i] = " | "[i % 3];
}

static void join_with_next(char *line, size_t n_chars) {
    line[n_chars] = ' ';
}

static void test_damaged_lines(void **state) {
    void (*const harms[])(char *, size_t) = {flip_digit_of_algorithm, change_key,
                                             replace_by_prose,        empty,
                                             replace_by_separators,   join_with_next};
    enum { N_HARMS = sizeof harms / sizeof *harms };
    for (int i = 0; i < N_HARMS; i++) {
        struct GemmCache *cache = filled_cache();
        damage(*state, 2, harms[i]);
        bool next_lost = harms[i] == join_with_next;
        struct Capture capture = capture_begin();
        for (int key = 0; key < KEYS; key++) {
            bool lost = key == 2 || (key == 3 && next_lost);
            if (finds(cache, key, key) == lost) fail_msg("harm %d, line %d", i, key);
        }
        assert_int_equal(capture_end(capture), 1); /* told once */

        store(cache, 2, 2); /* heals the file */
        if (next_lost) store(cache, 3, 3);
        gemm_cache_close(cache);
        cache = gemm_cache_open(device, VERSION);
        capture = capture_begin();
        for (int key = 0; key < KEYS; key++) assert_true(finds(cache, key, key));
        assert_int_equal(capture_end(capture), 0);
        gemm_cache_close(cache);
    }
}

/* A file that ends in the middle of a line loses that line. */
static void test_cut_off(void **state) {
    gemm_cache_close(filled_cache());
    char *path = scratch_path(*state, file_name);
    size_t n_bytes;
    unsigned char *text = scratch_read(path, &n_bytes);
    scratch_write(path, text, n_bytes - 30);
    free(text);
    free(path);
    struct GemmCache *cache = gemm_cache_open(device, VERSION);
    struct Capture capture = capture_begin();
    for (int key = 0; key < KEYS; key++) assert_int_equal(finds(cache, key, key), key < KEYS - 1);
    assert_int_equal(capture_end(capture), 1);
    gemm_cache_close(cache);
}

/* A file where the folder should be: nothing is kept, and that is told once. */
static void test_unwritable(void **state) {
    char *file = scratch_path(*state, "file"), *folder = xprintf("%s/folder", file);
    scratch_write(file, "", 0);
    assert_int_equal(setenv("TMD_CACHE_DIR", folder, 1), 0);
    struct Capture capture = capture_begin();
    struct GemmCache *cache = filled_cache();
    bool found = finds(cache, 0, 0);
    gemm_cache_close(cache);
    assert_int_equal(capture_end(capture), 1);
    assert_false(found);
    free(folder);
    free(file);
}

/* What a rank does at a new product; whether it measured. */
static bool measures(void) {
    struct GemmCache *cache = gemm_cache_open(device, VERSION);
    gemm_cache_lock(cache);
    gemm_cache_lock(cache); /* nests: the outer lock stays */
    gemm_cache_unlock(cache);
    bool measure = !finds(cache, 0, 1);
    usleep(20 * 1000);
    if (measure) store(cache, 0, 1);
    gemm_cache_unlock(cache);
    gemm_cache_close(cache);
    return measure;
}

static void test_one_measures(void **state) {
    (void)state;
    enum { N_PROCESSES = 4 };
    int n_measured = 0;
    for (int i = 0; i < N_PROCESSES; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) _exit(measures() ? 1 : 0);
    }
    for (int i = 0; i < N_PROCESSES; i++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status));
        n_measured += WEXITSTATUS(status);
    }
    assert_int_equal(n_measured, 1);
}

int main(void) {
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_round_trip), IN_FOLDER(test_home),       IN_FOLDER(test_damaged_lines),
        IN_FOLDER(test_cut_off),    IN_FOLDER(test_unwritable), IN_FOLDER(test_one_measures),
    };
    return cmocka_run_group_tests_name("gemm_cache", tests, NULL, NULL);
}
