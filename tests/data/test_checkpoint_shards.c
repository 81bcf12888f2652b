/* Sharded checkpoints: whatever the shapes, the number of shards and where they cut, the tensors
 * come back bit for bit, whole and in any range, through this program and through HDF5's virtual
 * datasets. */
#include <hdf5.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "checkpoint_fixture.h"
#include "data/checkpoint_contents.h"
#include "data/checkpoint_folder.h"
#include "data/crc32.h"
#include "data/h5_zstd.h"
#include "scratch.h"

static const int shard_counts[] = {1, 2, 3, 4, 8};
enum { N_COUNTS = sizeof shard_counts / sizeof *shard_counts };

/* ---- random tensors ---- */

static uint32_t draw(uint32_t *state, uint32_t n) {
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)*state * n >> 32);
}

enum { MAX_SHARDS = 8, N_TENSORS = 12, MAX_NAME = 32 };

struct RandomTensor {
    char name[MAX_NAME];
    int n_dims;
    int64_t shape[5], n_elems;
    int64_t cuts[MAX_SHARDS + 1];
    float *values;
};

static void make_tensor(struct RandomTensor *tensor, int number, int n_shards, uint32_t *state) {
    /* a percent sign is what HDF5 would replace in the name of a source */
    snprintf(tensor->name, MAX_NAME, "x%%b %d", number);
    tensor->n_dims = 1 + number % 5;
    tensor->n_elems = 1;
    for (int d = 0; d < tensor->n_dims; d++)
        tensor->n_elems *= tensor->shape[d] = 1 + draw(state, number == 6 ? 300 : 6);
    tensor->values = xmalloc((size_t)tensor->n_elems * sizeof *tensor->values);
    for (int64_t i = 0; i < tensor->n_elems; i++)
        tensor->values[i] = (float)draw(state, 1 << 24) + (float)number;
    tensor->cuts[0] = 0;
    tensor->cuts[n_shards] = tensor->n_elems;
    for (int s = 1; s < n_shards; s++) { /* sorted as they are drawn; some shards stay empty */
        int64_t left = tensor->n_elems - tensor->cuts[s - 1];
        tensor->cuts[s] = tensor->cuts[s - 1] + draw(state, (uint32_t)left + 1) / (1 + s % 3);
    }
}

static void write_tensors(const struct CkptSave *save, const struct RandomTensor *tensors) {
    struct Error err;
    struct CkptWriter *w;
    for (int s = save->n_shards - 1; s >= 0; s--) { /* in any order */
        check(ckpt_shard_open(save, s, &w, &err));
        for (int t = 0; t < N_TENSORS; t++) {
            const struct RandomTensor *x = &tensors[(t + s) % N_TENSORS];
            check(ckpt_shard_write_f32(w, "a/b", x->name, x->n_dims, x->shape, x->cuts[s],
                                       x->cuts[s + 1], x->values + x->cuts[s], &err));
        }
        check(ckpt_writer_commit(w, &err));
    }
    check(ckpt_master_open(save, &w, &err));
    check(ckpt_writer_commit(w, &err));
}

static void write_unsharded(const char *path, const struct RandomTensor *tensors) {
    struct Error err;
    struct CkptWriter *w;
    check(ckpt_writer_open_path(path, 0, "x", 1, &w, &err));
    for (int t = 0; t < N_TENSORS; t++)
        check(ckpt_write_f32(w, "a/b", tensors[t].name, tensors[t].n_dims, tensors[t].shape,
                             tensors[t].values, &err));
    check(ckpt_writer_commit(w, &err));
}

/* Some ranges of every tensor, among them empty ones, single elements and the whole. */
static void check_ranges(const char *path, const struct RandomTensor *tensors, uint32_t *state) {
    enum { N_RANGES = 20 };
    struct Error err;
    struct Ckpt *ckpt;
    check(ckpt_open(path, &ckpt, &err));
    check(ckpt_verify(ckpt, &err));
    for (int t = 0; t < N_TENSORS; t++) {
        const struct RandomTensor *x = &tensors[t];
        float *found = xmalloc((size_t)(x->n_elems + 2) * sizeof *found);
        for (int i = 0; i < N_RANGES; i++) {
            int64_t begin = draw(state, (uint32_t)x->n_elems + 1);
            int64_t n = draw(state, (uint32_t)(x->n_elems - begin) + 1);
            if (i == 0) begin = 0, n = x->n_elems;
            for (int64_t k = 0; k < n + 2; k++) found[k] = -7;
            check(ckpt_read_range_f32(ckpt, "a/b", x->name, x->n_dims, x->shape, begin, begin + n,
                                      false, found + 1, &err));
            assert_true(found[0] == -7 && found[n + 1] == -7);
            assert_memory_equal(found + 1, x->values + begin, (size_t)n * sizeof *found);
        }
        free(found);
    }
    ckpt_close(ckpt);
}

/* A range of every tensor, several times over and in one call: more bytes than one thread reads. */
static void check_ranges_together(const char *path, const struct RandomTensor *tensors,
                                  uint32_t *state) {
    enum { ROUNDS = 30, N = ROUNDS * N_TENSORS };
    struct Error err;
    struct Ckpt *ckpt;
    struct CkptWanted wanted[N];
    check(ckpt_open(path, &ckpt, &err));
    for (int i = 0; i < N; i++) {
        const struct RandomTensor *x = &tensors[i % N_TENSORS];
        int64_t begin = draw(state, (uint32_t)x->n_elems + 1);
        int64_t n = draw(state, (uint32_t)(x->n_elems - begin) + 1);
        float *out = xmalloc((size_t)(n + 1) * sizeof *out);
        out[n] = -7;
        wanted[i] =
            (struct CkptWanted){"a/b", x->name, x->n_dims, x->shape, begin, begin + n, out};
    }
    check(ckpt_read_ranges_f32(ckpt, N, wanted, false, &err));
    for (int i = 0; i < N; i++) {
        int64_t begin = wanted[i].begin, n = wanted[i].end - begin;
        assert_memory_equal(wanted[i].out, tensors[i % N_TENSORS].values + begin,
                            (size_t)n * sizeof *wanted[i].out);
        assert_true(wanted[i].out[n] == -7);
        free(wanted[i].out);
    }
    ckpt_close(ckpt);
}

/* What h5py would see. */
static void check_virtual(const char *path, const struct RandomTensor *tensors) {
    assert_true(h5_zstd_register());
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    for (int t = 0; t < N_TENSORS; t++) {
        const struct RandomTensor *x = &tensors[t];
        char *name = xprintf("a/b/%s", x->name);
        float *found = xcalloc((size_t)x->n_elems * sizeof *found);
        hsize_t dims[8];
        hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(dataset);
        assert_true(dataset >= 0);
        assert_int_equal(H5Sget_simple_extent_dims(space, dims, NULL), x->n_dims);
        for (int d = 0; d < x->n_dims; d++) assert_int_equal(dims[d], x->shape[d]);
        assert_true(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, found) >= 0);
        assert_memory_equal(found, x->values, (size_t)x->n_elems * sizeof *found);
        H5Sclose(space);
        H5Dclose(dataset);
        free(found);
        free(name);
    }
    H5Fclose(file);
}

static void test_random_shapes_and_ranges(void **state) {
    uint32_t random = 11;
    int64_t n_largest = 0;
    for (int c = 0; c < N_COUNTS; c++) {
        struct RandomTensor tensors[N_TENSORS];
        struct CkptSave save = small_ckpt_save(*state, c, c % 2, shard_counts[c]);
        for (int t = 0; t < N_TENSORS; t++) {
            make_tensor(&tensors[t], t, save.n_shards, &random);
            if (tensors[t].n_elems > n_largest) n_largest = tensors[t].n_elems;
        }
        char *path = ckpt_step_path(*state, c), *single = scratch_path(*state, "single.h5");
        write_tensors(&save, tensors);
        write_unsharded(single, tensors);
        check_ranges(path, tensors, &random);
        check_ranges(single, tensors, &random);
        check_ranges_together(path, tensors, &random);
        check_ranges_together(single, tensors, &random);
        check_virtual(path, tensors);
        for (int t = 0; t < N_TENSORS; t++) free(tensors[t].values);
        free(single);
        free(path);
    }
    assert_true(n_largest > 1 << 15); /* some were chunked */
}

/* ---- one checkpoint for everyone ---- */

static void test_round_trip(void **state) {
    for (int c = 0; c < N_COUNTS; c++)
        for (int level = 0; level <= 3; level += 3) {
            struct Error err;
            struct CkptSave save = small_ckpt_save(*state, 100 * c + level, level, shard_counts[c]);
            char *path = small_ckpt_make_sharded(&save);
            struct Ckpt *ckpt;
            check(small_ckpt_read(path, save.iteration, &err));
            check(ckpt_open(path, &ckpt, &err));
            assert_int_equal(ckpt_shard_count(ckpt), save.n_shards);
            ckpt_close(ckpt);
            free(path);
        }
    assert_int_equal(scratch_count(*state, ".h5"), 2 * N_COUNTS);
    assert_int_equal(scratch_count(*state, ".partial"), 0);
}

/* More than can stay open at once. */
static void test_many_shards(void **state) {
    struct Error err;
    struct CkptSave save = small_ckpt_save(*state, 1, 0, 70);
    char *path = small_ckpt_make_sharded(&save);
    check(small_ckpt_read(path, 1, &err)); /* goes through them several times */
    free(path);
}

/* Tensors have the checksums that they have unsharded. */
static void test_checksums_do_not_depend_on_the_shards(void **state) {
    struct Error err;
    struct Ckpt *single, *sharded;
    char *path = small_ckpt_make(*state, 5, 1);
    check(ckpt_open(path, &single, &err));
    struct CkptSave save = small_ckpt_save(*state, 5, 1, 3);
    free(small_ckpt_make_sharded(&save));
    check(ckpt_open(path, &sharded, &err));
    assert_int_equal(ckpt_count(single), ckpt_count(sharded));
    for (int64_t i = 0; i < ckpt_count(single); i++)
        assert_int_equal(ckpt_info(single, i)->crc32, ckpt_info(sharded, i)->crc32);
    ckpt_close(single);
    ckpt_close(sharded);
    free(path);
}

static void test_a_moved_folder(void **state) {
    struct Error err;
    char *old = scratch_path(*state, "."), *from = scratch_path(*state, "step-00000007.h5");
    char *folder = scratch_path(*state, "moved"), *to = scratch_path(folder, "renamed.h5");
    struct CkptSave save = small_ckpt_save(old, 7, 1, 4);
    free(small_ckpt_make_sharded(&save));
    char *name = ckpt_shards_name(7, save.id), *shards = scratch_path(*state, name);
    char *new_shards = scratch_path(folder, name);
    scratch_make_folder(folder);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(rename(shards, new_shards), 0);
    check(small_ckpt_read(to, 7, &err));
    free(new_shards);
    free(shards);
    free(name);
    free(to);
    free(folder);
    free(from);
    free(old);
}

/* ---- many chunks ---- */

/* Several chunks and a good tensor at once: the first error by order is told, and afterwards the
 * checkpoint reads as before. */
static void check_reading_after_errors(const char *path, const int64_t *shape, const float *data,
                                       int64_t cut, int64_t n_elems, float *found) {
    struct Error err;
    struct Ckpt *ckpt;
    const struct CkptWanted wanted[] = {
        {"a/b", "x", 2, shape, 0, 5, found},
        {"a/b", "x", 2, shape, n_elems - 900, n_elems - 800, found + 10},
        {"a/b", "x", 2, shape, n_elems - 5, n_elems, found + 200},
        {"a/b", "y", 2, shape, 0, 5, found},
    };
    check(ckpt_open(path, &ckpt, &err));
    check_error(ckpt_read_ranges_f32(ckpt, 3, wanted, false, &err), "chunk 9 has checksum");
    check_error(ckpt_read_ranges_f32(ckpt, 4, wanted, false, &err), "has no tensor a/b/y");
    check(ckpt_read_ranges_f32(ckpt, 1, wanted, false, &err));
    assert_memory_equal(found, data, 5 * sizeof *data);
    check(ckpt_read_range_f32(ckpt, "a/b", "x", 2, shape, cut, cut + 5, false, found, &err));
    assert_memory_equal(found, data + cut, 5 * sizeof *data);
    ckpt_close(ckpt);
}

/* Two shards of 11 MB: a range touches few of the chunks, and only those are looked at. */
static void test_ranges_read_only_their_chunks(void **state) {
    enum { ROWS = 2500, COLUMNS = 1100, N = ROWS * COLUMNS, CUT = 1500001 };
    const int64_t shape[] = {ROWS, COLUMNS};
    struct Error err;
    struct Ckpt *ckpt;
    struct CkptWriter *w;
    uint32_t random = 3;
    float *data = xmalloc(N * sizeof *data), *found = xmalloc(N * sizeof *found);
    for (int i = 0; i < N; i++) data[i] = (float)draw(&random, 1 << 24);
    struct CkptSave save = small_ckpt_save(*state, 1, 0, 2);
    const int64_t cuts[] = {0, CUT, N};
    for (int s = 0; s < 2; s++) {
        check(ckpt_shard_open(&save, s, &w, &err));
        check(ckpt_shard_write_f32(w, "a/b", "x", 2, shape, cuts[s], cuts[s + 1], data + cuts[s],
                                   &err));
        check(ckpt_writer_commit(w, &err));
    }
    check(ckpt_master_open(&save, &w, &err));
    check(ckpt_writer_commit(w, &err));
    char *path = ckpt_step_path(*state, 1), *shards = ckpt_shards_name(1, save.id);
    char *shard = xprintf("%s/%s/rank-001-of-002.h5", (const char *)*state, shards);
    check(ckpt_open(path, &ckpt, &err));
    check(ckpt_read_f32(ckpt, "a/b", "x", 2, shape, false, found, &err));
    assert_memory_equal(found, data, N * sizeof *data);
    assert_int_equal(ckpt_info(ckpt, 0)->crc32, crc32_after(0, data, N * sizeof *data));
    ckpt_close(ckpt);

    scratch_flip(shard, data + N - 10, 10 * sizeof *data); /* in the last chunk of all */
    check(ckpt_open(path, &ckpt, &err));
    check(ckpt_read_range_f32(ckpt, "a/b", "x", 2, shape, CUT - 5, CUT + 5, false, found, &err));
    assert_memory_equal(found, data + CUT - 5, 10 * sizeof *data);
    check_error(
        ckpt_read_range_f32(ckpt, "a/b", "x", 2, shape, N - 1000, N - 900, false, found, &err),
        "chunk 9 has checksum");
    check_error(ckpt_verify(ckpt, &err), "rank-001-of-002.h5");
    ckpt_close(ckpt);
    check_reading_after_errors(path, shape, data, CUT, N, found);
    scratch_remove_file(shard);
    check(ckpt_open(path, &ckpt, &err));
    check(ckpt_read_range_f32(ckpt, "a/b", "x", 2, shape, 0, CUT, false, found, &err));
    check_error(ckpt_read_range_f32(ckpt, "a/b", "x", 2, shape, 0, CUT + 1, false, found, &err),
                "shard 1 of 2");
    ckpt_close(ckpt);
    free(shard);
    free(shards);
    free(path);
    free(found);
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_random_shapes_and_ranges),
        WITH_FOLDER(test_round_trip),
        WITH_FOLDER(test_many_shards),
        WITH_FOLDER(test_checksums_do_not_depend_on_the_shards),
        WITH_FOLDER(test_a_moved_folder),
        WITH_FOLDER(test_ranges_read_only_their_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
