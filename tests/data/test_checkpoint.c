/* Checkpoints: what is written comes back bit for bit; whatever happens to a file (a flipped byte,
 * a cut, a writer killed, a full disk) is noticed, and the checkpoints before it stay usable. */
#define _GNU_SOURCE /* memmem */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/checkpoint.h"
#include "data/checkpoint_folder.h"
#include "data/checkpoint_writer.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"
#include "scratch.h"

/* ---- a small checkpoint with known contents ---- */

static const struct {
    const char *group, *name;
    int n_dims;
    int64_t shape[4];
} tensors[] = {
    {"student/param", "blocks.0.self_attn.q.weight", 2, {6, 5}},
    {"student/param", "fusion.gate", 1, {9}},
    {"student/adam_m", "blocks.0.self_attn.q.weight", 2, {6, 5}},
    {"fake/param", "patch_embedding.weight", 4, {4, 2, 1, 3}},
    {"student/ema", "head.head.weight", 2, {150, 160}}, /* 96,000 bytes: chunked */
};
enum { N_TENSORS = sizeof tensors / sizeof *tensors, MAX_ELEMS = 150 * 160 };

static int64_t count_elems(int t) {
    int64_t n = 1;
    for (int d = 0; d < tensors[t].n_dims; d++) n *= tensors[t].shape[d];
    return n;
}

/* Smooth enough to compress; different for each tensor and iteration. */
static void fill(float *out, int t, int64_t iteration) {
    for (int64_t i = 0; i < count_elems(t); i++)
        out[i] = (float)(iteration + 1) * 0.25f + (float)(i % 97) * 0.5f - (float)t;
}

static bool write_small(const char *folder, int64_t iteration, int level, struct Error *err) {
    static const char yaml[] = "model:\n  dim: 36\n";
    struct CkptWriter *w;
    float *data = xmalloc(MAX_ELEMS * sizeof *data);
    bool written = ckpt_writer_open(folder, iteration, "stage1", level, &w, err);
    bool opened = written;
    for (int t = 0; written && t < N_TENSORS; t++) {
        fill(data, t, iteration);
        written = ckpt_write_f32(w, tensors[t].group, tensors[t].name, tensors[t].n_dims,
                                 tensors[t].shape, data, err);
    }
    free(data);
    written = written && ckpt_set_text(w, CKPT_KEY_CONFIG, yaml, err) &&
              ckpt_set_int(w, "data.position", INT64_C(9007199254740993), err) &&
              ckpt_set_real(w, "loss.mean", 0.1, err) && ckpt_set_text(w, "empty", "", err);
    if (written) return ckpt_writer_commit(w, err);
    if (opened) ckpt_writer_abandon(w);
    return false;
}

static char *make_small(const char *folder, int64_t iteration, int level) {
    struct Error err;
    if (!write_small(folder, iteration, level, &err)) fail_msg("%s", err.text);
    return ckpt_step_path(folder, iteration);
}

/* Opens, verifies and compares everything with what write_small wrote: false and a reason if the
 * file is refused; a silent difference fails the test. */
static bool read_small(const char *path, int64_t iteration, struct Error *err) {
    struct Ckpt *ckpt;
    if (!ckpt_open(path, &ckpt, err)) return false;
    bool good = ckpt_verify(ckpt, err);
    float *found = xmalloc(MAX_ELEMS * sizeof *found),
          *expected = xmalloc(MAX_ELEMS * sizeof *found);
    for (int t = 0; good && t < N_TENSORS; t++) {
        fill(expected, t, iteration);
        good = ckpt_read_f32(ckpt, tensors[t].group, tensors[t].name, tensors[t].n_dims,
                             tensors[t].shape, false, found, err);
        if (good) assert_memory_equal(found, expected, (size_t)count_elems(t) * sizeof *found);
    }
    free(expected);
    free(found);
    if (good) {
        int64_t position;
        double loss;
        const char *yaml;
        assert_int_equal(ckpt_iteration(ckpt), iteration);
        assert_string_equal(ckpt_stage(ckpt), "stage1");
        assert_int_equal(ckpt_count(ckpt), N_TENSORS);
        assert_int_equal(ckpt_value_count(ckpt), 4);
        assert_true(ckpt_get_int(ckpt, "data.position", &position, err));
        assert_true(position == INT64_C(9007199254740993));
        assert_true(ckpt_get_real(ckpt, "loss.mean", &loss, err));
        assert_true(loss == 0.1);
        assert_true(ckpt_get_text(ckpt, CKPT_KEY_CONFIG, &yaml, err));
        assert_string_equal(yaml, "model:\n  dim: 36\n");
        assert_true(ckpt_get_text(ckpt, "empty", &yaml, err));
        assert_string_equal(yaml, "");
    }
    ckpt_close(ckpt);
    return good;
}

static void assert_names(const struct Error *err, const char *what) {
    if (!strstr(err->text, what)) fail_msg("'%s' does not name '%s'", err->text, what);
    assert_null(strchr(err->text, '\n'));
}

static int make_folder(void **state) {
    *state = scratch_make();
    return 0;
}

static int remove_folder(void **state) {
    scratch_remove(*state);
    return 0;
}

/* ---- contents ---- */

static void test_round_trip(void **state) {
    for (int level = 0; level <= 3; level += 3) {
        struct Error err;
        char *path = make_small(*state, 1000 + level, level);
        if (!read_small(path, 1000 + level, &err)) fail_msg("%s", err.text);
        free(path);
    }
    assert_int_equal(scratch_count(*state, ".h5"), 2);
    assert_int_equal(scratch_count(*state, ".partial"), 0);
}

static void test_equal_contents_make_equal_files(void **state) {
    size_t n_first, n_second;
    char *path = make_small(*state, 7, 1);
    unsigned char *first = scratch_read(path, &n_first);
    free(path);
    path = make_small(*state, 7, 1);
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
    char *path = make_small(*state, 1, 0);
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
    char *path = make_small(*state, 1, 0);
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
    assert_true(ckpt_writer_commit(w, &err));
    assert_true(ckpt_open(path, &ckpt, &err));
    assert_false(ckpt_read_f32(ckpt, "teacher/param", "x", 1, shape, false, found, &err));
    assert_names(&err, "teacher/param/x");
    assert_names(&err, "not finite");
    assert_true(ckpt_read_f32(ckpt, "teacher/param", "x", 1, shape, true, found, &err));
    assert_memory_equal(found, data, sizeof data);
    ckpt_close(ckpt);
    free(path);
}

/* ---- damage ---- */

/* Every byte of the file in turn: either the file is refused, or the byte carried nothing. */
static void test_flipped_bytes(void **state) {
    struct Error err;
    size_t n_bytes;
    char *path = make_small(*state, 3, 1), *damaged = scratch_path(*state, "damaged.h5");
    unsigned char *bytes = scratch_read(path, &n_bytes);
    int n_found = 0, n_tried = 0, n_named = 0;
    for (size_t at = 0; at < n_bytes; at += 3 + at % 7) {
        bytes[at] ^= (unsigned char)(1u << at % 8);
        scratch_write(damaged, bytes, n_bytes);
        bytes[at] ^= (unsigned char)(1u << at % 8);
        n_tried++;
        if (read_small(damaged, 3, &err)) continue;
        assert_names(&err, "damaged.h5");
        n_named += strstr(err.text, "tensor ") != NULL;
        n_found++;
    }
    assert_true(n_tried > 1000);
    assert_true(n_named > 10);
    assert_true(n_found > n_tried / 4);
    free(bytes);
    free(path);
    free(damaged);
}

/* Where the data of a tensor is known, its damage must be found and must carry its name. */
static void test_flipped_data_names_the_tensor(void **state) {
    struct Error err;
    size_t n_bytes;
    char *path = make_small(*state, 3, 0), *damaged = scratch_path(*state, "damaged.h5");
    unsigned char *bytes = scratch_read(path, &n_bytes);
    float *data = xmalloc(MAX_ELEMS * sizeof *data);
    for (int t = 0; t < N_TENSORS; t++) {
        size_t n_data = (size_t)count_elems(t) * sizeof *data;
        fill(data, t, 3);
        unsigned char *place = memmem(bytes, n_bytes, data, n_data);
        assert_non_null(place);
        place[n_data / 2] ^= 0x10;
        scratch_write(damaged, bytes, n_bytes);
        place[n_data / 2] ^= 0x10;
        assert_false(read_small(damaged, 3, &err));
        assert_names(&err, tensors[t].name);
        assert_names(&err, "checksum");
    }
    free(data);
    free(bytes);
    free(path);
    free(damaged);
}

/* Changes that leave a perfect HDF5 file: only the manifest can tell. */
static bool tamper(hid_t file, int how, struct Error *err) {
    switch (how) {
    case 0:
        return h5_attr_write_i64(file, "iteration", 4, err);
    case 1:
        return h5_attr_write_double(file, "loss.mean", 0.2, err);
    case 2:
        return h5_attr_write_text(file, "empty", "?", err);
    case 3:
        return h5_attr_write_i64(file, "one.more", 1, err);
    case 4:
        return H5Adelete(file, "data.position") >= 0;
    case 5:
        return H5Ldelete(file, "/student/adam_m/blocks.0.self_attn.q.weight", H5P_DEFAULT) >= 0;
    case 6:
        return H5Lmove(file, "/student/param/fusion.gate", file, "/student/param/fusion.gates",
                       H5P_DEFAULT, H5P_DEFAULT) >= 0;
    case 7:
        return H5Lmove(file, "/student/ema", file, "/student/adam_v", H5P_DEFAULT, H5P_DEFAULT) >=
               0;
    default:
        return false;
    }
}

static void test_tampering(void **state) {
    enum { WAYS = 8 };
    for (int how = 0; how < WAYS; how++) {
        struct Error err;
        char *path = make_small(*state, 3, 1);
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(file >= 0 && tamper(file, how, &err));
        H5Fclose(file);
        assert_false(read_small(path, 3, &err));
        assert_names(&err, "manifest");
        free(path);
    }
}

static void test_truncation(void **state) {
    struct Error err;
    size_t n_bytes;
    char *path = make_small(*state, 3, 1), *cut = scratch_path(*state, "cut.h5");
    unsigned char *bytes = scratch_read(path, &n_bytes);
    int n_tried = 0;
    for (size_t length = 0; length < n_bytes; length += 1 + n_bytes / 300, n_tried++) {
        scratch_write(cut, bytes, length);
        assert_false(read_small(cut, 3, &err));
        assert_names(&err, "cut.h5");
    }
    assert_true(n_tried > 100);
    free(bytes);
    free(path);
    free(cut);
}

static void test_files_of_others(void **state) {
    struct Error err;
    struct Ckpt *ckpt;
    hid_t file;
    char *path = scratch_path(*state, "other.h5");
    assert_false(ckpt_open(path, &ckpt, &err));
    assert_names(&err, "other.h5");
    assert_false(ckpt_open(*state, &ckpt, &err));
    scratch_write(path, "hello\n", 6);
    assert_false(ckpt_open(path, &ckpt, &err));
    assert_names(&err, "other.h5");

    assert_true(h5_create(path, &file, &err));
    H5Fclose(file);
    assert_false(ckpt_open(path, &ckpt, &err));
    assert_names(&err, "not a checkpoint");

    assert_true(h5_create(path, &file, &err));
    assert_true(h5_attr_write_text(file, "format", CKPT_FORMAT, &err));
    assert_true(h5_attr_write_i64(file, "format_version", CKPT_FORMAT_VERSION + 1, &err));
    H5Fclose(file);
    assert_false(ckpt_open(path, &ckpt, &err));
    assert_names(&err, "version 2");

    assert_true(h5_create(path, &file, &err));
    assert_true(h5_attr_write_text(file, "format", CKPT_FORMAT, &err));
    assert_true(h5_attr_write_i64(file, "format_version", CKPT_FORMAT_VERSION, &err));
    H5Fclose(file);
    assert_false(ckpt_open(path, &ckpt, &err));
    assert_names(&err, "never finished");
    free(path);
}

/* ---- crashes ---- */

static void no_skips(void *context, const char *path, const char *reason) {
    (void)context;
    fail_msg("%s is damaged: %s", path, reason);
}

static void test_killed_writers(void **state) {
    enum { KILLS = 50 };
    const char *folder = *state;
    int64_t newest = 0;
    int n_before = 0, n_after = 0;
    free(make_small(folder, newest, 1));
    for (int kill_number = 0; kill_number < KILLS; kill_number++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct Error err;
            for (int64_t step = newest + 1;; step++) {
                if (!write_small(folder, step, 1, &err)) _exit(1);
            }
        }
        usleep((useconds_t)(kill_number * 7919 % 15000));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status)); /* it never stopped with an error */

        struct Error err;
        char *path;
        if (!ckpt_newest_valid(folder, &path, no_skips, NULL, &err)) fail_msg("%s", err.text);
        assert_non_null(path);
        struct Ckpt *ckpt;
        assert_true(ckpt_open(path, &ckpt, &err));
        assert_true(ckpt_iteration(ckpt) >= newest);
        *(ckpt_iteration(ckpt) == newest ? &n_before : &n_after) += 1;
        newest = ckpt_iteration(ckpt);
        ckpt_close(ckpt);
        assert_true(read_small(path, newest, &err));
        assert_true(ckpt_rotate(folder, 2, 0, path, &err));
        free(path);
    }
    assert_true(n_before > 0 && n_after > 0); /* the kills hit different moments */
    free(make_small(folder, newest + 1, 1));
    assert_int_equal(scratch_count(folder, ".partial"), 0);
}

/* A limit on the length of files stands in for a full disk: writes fail from there on. */
static void limit_files(size_t n_bytes) {
    struct rlimit lengths;
    getrlimit(RLIMIT_FSIZE, &lengths);
    lengths.rlim_cur = n_bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &lengths), 0);
}

/* In a process of its own, which must get through its normal end, too: fails to write step 2, then,
 * with room again, writes step 3. */
static _Noreturn void run_out_of_disk(const char *folder, size_t limit) {
    struct Error err = {0};
    signal(SIGXFSZ, SIG_IGN);
    limit_files(limit);
    bool written = write_small(folder, 2, 0, &err);
    limit_files(RLIM_INFINITY);
    bool named = strstr(err.text, "File too large") && !strchr(err.text, '\n');
    bool goes_on = write_small(folder, 3, 0, &err);
    exit(!written && named && goes_on ? 42 : 1);
}

static void test_full_disk(void **state) {
    const char *folder = *state;
    char path[256], later[256]; /* not on the heap: children would leak it */
    struct Error err;
    size_t n_whole;
    snprintf(path, sizeof path, "%s/step-00000001.h5", folder);
    snprintf(later, sizeof later, "%s/step-00000003.h5", folder);
    free(make_small(folder, 1, 0));
    free(scratch_read(path, &n_whole));
    for (size_t limit = 0; limit < n_whole; limit += n_whole / 7) {
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) run_out_of_disk(folder, limit);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 42);
        assert_int_equal(scratch_count(folder, ".partial"), 0);
        assert_int_equal(scratch_count(folder, ".h5"), 2);
        assert_true(read_small(path, 1, &err));
        assert_true(read_small(later, 3, &err));
        unlink(later);
    }
}

/* ---- the folder ---- */

static void count_skip(void *context, const char *path, const char *reason) {
    assert_true(strstr(path, "step-") && reason[0]);
    ++*(int *)context;
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

    char *first = make_small(*state, 90, 1), *second = make_small(*state, 100, 1);
    char *third = make_small(*state, 123456789, 1); /* nine digits: newer than 00000100 */
    damage(third);
    damage(second);
    assert_true(ckpt_newest_valid(*state, &path, count_skip, &n_skipped, &err));
    assert_string_equal(path, first);
    assert_int_equal(n_skipped, 2);
    free(path);
    damage(first);
    assert_false(ckpt_newest_valid(*state, &path, NULL, NULL, &err));
    assert_names(&err, "3 checkpoints");
    free(first);
    free(second);
    free(third);
}

static void test_rotation(void **state) {
    struct Error err;
    char *paths[7];
    for (int i = 1; i <= 6; i++) paths[i] = make_small(*state, 10 * i, 1);
    char *bystander = scratch_path(*state, "step-final.h5");
    scratch_write(bystander, "x", 1);
    assert_true(ckpt_rotate(*state, 2, 30, paths[6], &err));
    for (int i = 1; i <= 6; i++) assert_int_equal(scratch_exists(paths[i]), i == 3 || i >= 5);
    assert_true(scratch_exists(bystander));

    damage(paths[6]);
    damage(paths[5]);
    assert_true(ckpt_rotate(*state, 1, 0, NULL, &err)); /* only step 30 is intact: it must stay */
    assert_true(scratch_exists(paths[3]));
    assert_false(scratch_exists(paths[5]));
    assert_true(scratch_exists(paths[6]));
    for (int i = 1; i <= 6; i++) free(paths[i]);
    free(bystander);
}

int main(void) {
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_round_trip),
        WITH_FOLDER(test_equal_contents_make_equal_files),
        WITH_FOLDER(test_several_chunks),
        WITH_FOLDER(test_long_text),
        WITH_FOLDER(test_groups),
        WITH_FOLDER(test_what_is_asked_for_must_be_there),
        WITH_FOLDER(test_nonfinite_values_are_refused_unless_allowed),
        WITH_FOLDER(test_flipped_bytes),
        WITH_FOLDER(test_flipped_data_names_the_tensor),
        WITH_FOLDER(test_tampering),
        WITH_FOLDER(test_truncation),
        WITH_FOLDER(test_files_of_others),
        WITH_FOLDER(test_killed_writers),
        WITH_FOLDER(test_full_disk),
        WITH_FOLDER(test_newest_valid),
        WITH_FOLDER(test_rotation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
