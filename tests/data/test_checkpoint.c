/* Checkpoints: what is written comes back bit for bit, by name and in the shape that is asked for.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint_fixture.h"
#include "data/checkpoint_writer.h"
#include "scratch.h"

static void test_round_trip(void **state) {
    for (int level = 0; level <= 3; level += 3) {
        struct Error err;
        char *path = small_ckpt_make(*state, 1000 + level, level);
        if (!small_ckpt_read(path, 1000 + level, &err)) fail_msg("%s", err.text);
        free(path);
    }
    assert_int_equal(scratch_count(*state, ".h5"), 2);
    assert_int_equal(scratch_count(*state, ".partial"), 0);
}

static void test_equal_contents_make_equal_files(void **state) {
    size_t n_first, n_second;
    char *path = small_ckpt_make(*state, 7, 1);
    unsigned char *first = scratch_read(path, &n_first);
    free(path);
    path = small_ckpt_make(*state, 7, 1);
    unsigned char *second = scratch_read(path, &n_second);
    assert_int_equal(n_first, n_second);
    assert_memory_equal(first, second, n_first);
    free(first);
    free(second);
    free(path);
}

static void test_several_chunks(void **state) {
    enum { ROWS = 2500, COLUMNS = 1100 }; /* 11 MB: three chunks, the last one cut */
    const int64_t shape[] = {ROWS, COLUMNS};
    size_t n_bytes = (size_t)ROWS * COLUMNS * sizeof(float);
    float *data = xmalloc(n_bytes), *found = xmalloc(n_bytes);
    uint32_t bits = 1;
    for (size_t i = 0; i < n_bytes / sizeof *data; i++) {
        bits = bits * 1664525u + 1013904223u;
        data[i] = (float)(bits >> 8) * 0x1p-24f;
    }
    char *path = scratch_path(*state, "import.h5");
    struct CkptWriter *w;
    struct Ckpt *ckpt;
    struct Error err;
    assert_true(ckpt_writer_open_path(path, 0, "import", 1, &w, &err));
    assert_true(ckpt_write_f32(w, "teacher/param", "big", 2, shape, data, &err));
    assert_true(ckpt_writer_commit(w, &err));
    assert_true(ckpt_open(path, &ckpt, &err));
    assert_true(ckpt_verify(ckpt, &err));
    assert_true(ckpt_read_f32(ckpt, "teacher/param", "big", 2, shape, false, found, &err));
    assert_memory_equal(data, found, n_bytes);
    ckpt_close(ckpt);
    free(path);
    free(data);
    free(found);
}

/* A configuration with many prompts: far beyond the 64 KB that an attribute of older HDF5 files may
 * have. */
static void test_long_text(void **state) {
    enum { N_BYTES = 300000 };
    char *path = scratch_path(*state, "text.h5"), *text = xmalloc(N_BYTES + 1);
    const char *found;
    struct CkptWriter *w;
    struct Ckpt *ckpt;
    struct Error err;
    for (int i = 0; i < N_BYTES; i++) text[i] = (char)('a' + i % 26);
    text[N_BYTES] = '\0';
    assert_true(ckpt_writer_open_path(path, 0, "teacher", 0, &w, &err));
    assert_true(ckpt_set_text(w, "long", text, &err));
    assert_true(ckpt_writer_commit(w, &err));
    if (!ckpt_open(path, &ckpt, &err)) fail_msg("%s", err.text);
    assert_true(ckpt_get_text(ckpt, "long", &found, &err));
    assert_string_equal(found, text);
    ckpt_close(ckpt);
    free(text);
    free(path);
}

static void test_groups(void **state) {
    char *path = small_ckpt_make(*state, 1, 0);
    struct Ckpt *ckpt;
    struct Error err;
    int64_t first;
    assert_true(ckpt_open(path, &ckpt, &err));
    assert_int_equal(ckpt_group(ckpt, "student/param", &first), 2);
    assert_string_equal(ckpt_info(ckpt, first)->name, "blocks.0.self_attn.q.weight");
    assert_string_equal(ckpt_info(ckpt, first + 1)->name, "fusion.gate");
    assert_int_equal(ckpt_info(ckpt, first)->shape[1], 5);
    assert_int_equal(ckpt_group(ckpt, "student/par", &first), 0);
    assert_int_equal(ckpt_find(ckpt, "student/param", "head"), -1);
    ckpt_close(ckpt);
    free(path);
}

static void test_what_is_asked_for_must_be_there(void **state) {
    char *path = small_ckpt_make(*state, 1, 0);
    const int64_t turned[] = {5, 6}, gate[] = {1};
    float data[30];
    struct Ckpt *ckpt;
    struct Error err;
    int64_t integer;
    double real;
    assert_true(ckpt_open(path, &ckpt, &err));
    assert_false(ckpt_read_f32(ckpt, "student/param", "fusion.gat", 1, gate, false, data, &err));
    assert_names(&err, "student/param/fusion.gat");
    assert_false(ckpt_read_f32(ckpt, "student/param", "blocks.0.self_attn.q.weight", 2, turned,
                               false, data, &err));
    assert_names(&err, "[5, 6]");
    assert_names(&err, "[6, 5]");
    assert_false(ckpt_get_int(ckpt, "nothing", &integer, &err));
    assert_names(&err, "nothing");
    assert_false(ckpt_get_int(ckpt, "loss.mean", &integer, &err));
    assert_names(&err, "loss.mean");
    assert_false(ckpt_get_real(ckpt, "data.position", &real, &err));
    assert_names(&err, path);
    assert_false(ckpt_has(ckpt, "iteration"));
    ckpt_close(ckpt);
    free(path);
}

static void test_nonfinite_values_are_refused_unless_allowed(void **state) {
    char *path = scratch_path(*state, "nan.h5");
    const int64_t shape[] = {3};
    const float data[] = {1, NAN, -INFINITY};
    float found[3];
    struct CkptWriter *w;
    struct Ckpt *ckpt;
    struct Error err;
    assert_true(ckpt_writer_open_path(path, 0, "teacher", 0, &w, &err));
    assert_true(ckpt_write_f32(w, "teacher/param", "x", 1, shape, data, &err));
    assert_true(ckpt_write_f32(w, "teacher/param", "y", 1, shape, data, &err));
    assert_true(ckpt_writer_commit(w, &err));
    assert_true(ckpt_open(path, &ckpt, &err));
    const struct CkptWanted both[] = {{"teacher/param", "y", 1, shape, 0, 3, found},
                                      {"teacher/param", "x", 1, shape, 0, 3, found}};
    assert_false(ckpt_read_ranges_f32(ckpt, 2, both, false, &err));
    assert_names(&err, "teacher/param/y"); /* the first that was asked for */
    assert_false(ckpt_read_f32(ckpt, "teacher/param", "x", 1, shape, false, found, &err));
    assert_names(&err, "teacher/param/x");
    assert_names(&err, "not finite");
    assert_true(ckpt_read_f32(ckpt, "teacher/param", "x", 1, shape, true, found, &err));
    assert_memory_equal(found, data, sizeof data);
    ckpt_close(ckpt);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_round_trip),
        WITH_FOLDER(test_equal_contents_make_equal_files),
        WITH_FOLDER(test_several_chunks),
        WITH_FOLDER(test_long_text),
        WITH_FOLDER(test_groups),
        WITH_FOLDER(test_what_is_asked_for_must_be_there),
        WITH_FOLDER(test_nonfinite_values_are_refused_unless_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
