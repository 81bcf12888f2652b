/* Damaged and hostile sharded checkpoints: shards that are missing, damaged or of another save,
 * masters whose table lies.  All are refused with a sentence that names the file, and the newest
 * intact checkpoint is found behind them. */
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
#include "data/checkpoint_folder.h"
#include "data/checkpoint_shard_file.h"
#include "data/checkpoint_writer_parts.h"
#include "data/h5_attr.h"
#include "data/h5_virtual.h"
#include "scratch.h"

enum { N_SHARDS = 3 };

static void copy(const char *from, const char *to) {
    size_t n_bytes;
    unsigned char *bytes = scratch_read(from, &n_bytes);
    scratch_write(to, bytes, n_bytes);
    free(bytes);
}

/* ---- shards ---- */

static bool note_skip(void *context, const char *path) {
    struct Error reason;
    bool intact = ckpt_is_intact(path, 0, 1, &reason);
    if (!intact) *(char **)context = xstrdup(reason.text);
    return intact;
}

/* The checkpoint of step 3 is skipped for that reason, and the one before it found. */
static void check_skipped(const char *folder, const char *expected) {
    struct Error err;
    char *path, *reason = NULL;
    check(ckpt_newest_valid(folder, &path, note_skip, &reason, &err));
    assert_non_null(path);
    check(small_ckpt_read(path, 2, &err));
    assert_non_null(reason);
    if (!strstr(reason, expected)) fail_msg("expected '%s' in: %s", expected, reason);
    assert_non_null(strstr(reason, "rank-001-of-003.h5"));
    free(reason);
    free(path);
}

/* Each part of a verification looks at its own tensors, and together they look at all: wherever the
 * damage is, one part finds it. */
static void test_parts(void **state) {
    enum { MOST_PARTS = 7 };
    struct Error err;
    float *data = xmalloc(SMALL_CKPT_MAX_ELEMS * sizeof *data);
    for (int t = 0; t < SMALL_CKPT_TENSORS; t++) {
        struct CkptSave save = small_ckpt_save(*state, t + 1, 0, N_SHARDS);
        char *path = small_ckpt_make_sharded(&save);
        char *shards = ckpt_shards_name(save.iteration, save.id);
        char *shard = xprintf("%s/%s/rank-002-of-003.h5", (const char *)*state, shards);
        small_ckpt_fill(data, t, save.iteration);
        int64_t n_elems = small_ckpt_elems(t), n_last = (n_elems + 1) / 2;
        scratch_flip(shard, data + n_elems - n_last, (size_t)n_last * sizeof *data);
        for (int n_parts = 1; n_parts <= MOST_PARTS; n_parts++) {
            int n_damaged = 0;
            for (int part = 0; part < n_parts; part++)
                n_damaged += !ckpt_is_intact(path, part, n_parts, &err);
            assert_int_equal(n_damaged, 1);
        }
        free(shard);
        free(shards);
        free(path);
    }
    free(data);
}

static void test_shards_of_others(void **state) {
    struct Error err;
    struct CkptSave before = small_ckpt_save(*state, 2, 1, N_SHARDS);
    struct CkptSave save = small_ckpt_save(*state, 3, 1, N_SHARDS);
    struct CkptSave other = small_ckpt_save(*state, 3, 1, N_SHARDS);
    struct CkptSave wider = small_ckpt_save(*state, 3, 1, N_SHARDS + 1);
    wider.id = save.id;
    free(small_ckpt_make_sharded(&before));
    check(small_ckpt_write_shard(&other, 1, &err)); /* first: opening shard 0 sweeps */
    char *path = ckpt_shard_path(&save, 1), *kept = scratch_path(*state, "kept.h5");
    char *foreign = ckpt_shard_path(&other, 1), *moved = scratch_path(*state, "other.h5");
    copy(foreign, moved);
    char *master = small_ckpt_make_sharded(&save);
    check(small_ckpt_write_shard(&wider, 1, &err));
    copy(path, kept);
    const struct {
        char *file;
        const char *reason;
    } cases[] = {
        {ckpt_shard_path(&before, 1), "expected iteration 3, got 2"},
        {moved, "expected save_id"},
        {ckpt_shard_path(&save, 2), "expected shard 1, got 2"},
        {ckpt_shard_path(&wider, 1), "expected n_shards 3, got 4"},
        {ckpt_step_path(*state, 2), "expected an attribute 'format'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        copy(cases[i].file, path);
        check_skipped(*state, cases[i].reason);
        free(cases[i].file);
    }
    copy(kept, path);
    check(small_ckpt_read(master, 3, &err));
    scratch_remove_file(path);
    check_skipped(*state, "shard 1 of 3: cannot open");
    free(master);
    free(foreign);
    free(kept);
    free(path);
}

/* In place: files that are written anew are flushed to the disk when they are closed. */
static void put_byte(const char *path, size_t at, unsigned char byte) {
    FILE *stream = fopen(path, "r+b");
    assert_non_null(stream);
    assert_true(fseek(stream, (long)at, SEEK_SET) == 0 && fputc(byte, stream) == byte);
    assert_int_equal(fclose(stream), 0);
}

/* Bytes all over a shard or a master: the file is refused, or the byte carried nothing. */
static void flip_some(const char *path, const char *master) {
    enum { N_FLIPS = 500, N_CUTS = 100 };
    struct Error err;
    size_t n_bytes;
    unsigned char *bytes = scratch_read(path, &n_bytes);
    int n_found = 0, n_tried = 0;
    for (size_t at = 0; at < n_bytes; at += 1 + (n_bytes + at % 7) / N_FLIPS, n_tried++) {
        put_byte(path, at, (unsigned char)(bytes[at] ^ 1u << at % 8));
        if (!small_ckpt_read(master, 3, &err)) {
            assert_names(&err, path);
            n_found++;
        }
        put_byte(path, at, bytes[at]);
    }
    assert_true(n_tried > N_FLIPS / 2);
    assert_true(n_found > n_tried / 8);
    for (size_t n = 0; n < n_bytes; n += 1 + n_bytes / N_CUTS) {
        scratch_write(path, bytes, n);
        check_error(small_ckpt_read(master, 3, &err), path);
    }
    scratch_write(path, bytes, n_bytes);
    check(small_ckpt_read(master, 3, &err));
    free(bytes);
}

static void test_flipped_bytes(void **state) {
    struct CkptSave save = small_ckpt_save(*state, 3, 1, N_SHARDS);
    char *master = small_ckpt_make_sharded(&save), *shard = ckpt_shard_path(&save, 2);
    flip_some(shard, master);
    flip_some(master, master);
    free(shard);
    free(master);
}

/* In shards, the data of a tensor that lies in another file must not be fetched from there. */
static void test_virtual_shard(void **state) {
    struct Error err;
    struct CkptSave save = small_ckpt_save(*state, 3, 1, N_SHARDS);
    char *master = small_ckpt_make_sharded(&save), *shard = ckpt_shard_path(&save, 2);
    const int64_t n_elems = 7; /* as the fixture cuts this tensor */
    const struct H5Source source = {"elsewhere.h5", "/x", 0, n_elems};
    hid_t file = H5Fopen(shard, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(H5Ldelete(file, "student/param/fusion.gate", H5P_DEFAULT) >= 0);
    check(h5_virtual_create(file, "student/param/fusion.gate", 1, &n_elems, 1, &source, &err));
    H5Fclose(file);
    check_error(small_ckpt_read(master, 3, &err), "virtual dataset, which is never followed");
    free(shard);
    free(master);
}

static void test_a_shard_is_no_checkpoint(void **state) {
    struct Error err;
    struct Ckpt *ckpt;
    struct CkptSave save = small_ckpt_save(*state, 3, 1, N_SHARDS);
    char *master = small_ckpt_make_sharded(&save), *shard = ckpt_shard_path(&save, 2);
    check_error(ckpt_open(shard, &ckpt, &err), "one shard of a checkpoint");
    free(shard);
    free(master);
}

/* ---- masters ---- */

/* Puts a byte into a column of the table. */
static bool poke(hid_t file, const char *column, size_t at, unsigned char byte) {
    hid_t dataset = H5Dopen2(file, column, H5P_DEFAULT), type = H5Dget_type(dataset);
    unsigned char bytes[4096] = {0};
    bool poked = H5Dget_storage_size(dataset) <= sizeof bytes &&
                 H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) >= 0;
    bytes[at] = byte;
    poked = poked && H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) >= 0;
    H5Tclose(type);
    H5Dclose(dataset);
    return poked;
}

/* Makes a column gigabytes long, of a file that has a hole there. */
static bool lengthen(hid_t file, const char *column) {
    const hsize_t n_bytes = (hsize_t)3 << 30;
    hid_t space = H5Screate_simple(1, &n_bytes, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    bool made = H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY) >= 0 &&
                H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) >= 0 &&
                H5Ldelete(file, column, H5P_DEFAULT) >= 0;
    hid_t dataset = H5Dcreate2(file, column, H5T_STD_U8LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    H5Dclose(dataset);
    H5Pclose(list);
    H5Sclose(space);
    return made && dataset >= 0;
}

/* Changes that leave a perfect HDF5 file. */
static bool tamper(hid_t file, int how, struct Error *err) {
    enum { END_OF_PIECE_0 = 3 * 8 };
    switch (how) {
    case 0:
        return poke(file, "contents/names", 0, 'F');
    case 1:
        return poke(file, "contents/shapes", 0, 3);
    case 2: /* a piece without elements */
        return poke(file, "contents/pieces", END_OF_PIECE_0, 0);
    case 3:
        return poke(file, "contents/chunk_crc32", 0, 7);
    case 4:
        return h5_attr_write_i64(file, "iteration", 4, err);
    case 5:
        return h5_attr_write_i64(file, "n_shards", 4, err);
    case 6:
        return h5_attr_write_i64(file, "save_id", 4, err);
    case 7: /* the tensors would be read through the virtual datasets */
        return h5_attr_write_i64(file, "format_version", CKPT_VERSION_SINGLE, err);
    case 8:
        return H5Ldelete(file, "contents", H5P_DEFAULT) >= 0;
    case 9:
        return H5Lmove(file, "contents", file, "x", H5P_DEFAULT, H5P_DEFAULT) >= 0 &&
               H5Lcreate_soft("/x", file, "contents", H5P_DEFAULT, H5P_DEFAULT) >= 0;
    case 10:
        return lengthen(file, "contents/names");
    default:
        return H5Ldelete(file, "contents", H5P_DEFAULT) >= 0 &&
               H5Lcreate_external("other.h5", "/contents", file, "contents", H5P_DEFAULT,
                                  H5P_DEFAULT) >= 0;
    }
}

static void test_tampering(void **state) {
    enum { WAYS = 12 };
    struct CkptSave save = small_ckpt_save(*state, 3, 1, N_SHARDS);
    char *master = small_ckpt_make_sharded(&save), *intact = scratch_path(*state, "intact");
    copy(master, intact);
    for (int how = 0; how < WAYS; how++) {
        struct Error err;
        struct Ckpt *ckpt;
        copy(intact, master);
        hid_t file = H5Fopen(master, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(file >= 0 && tamper(file, how, &err));
        H5Fclose(file);
        if (ckpt_open(master, &ckpt, &err)) fail_msg("way %d was not noticed", how);
        assert_names(&err, master);
        if (how == 2) assert_names(&err, "piece 0");
        if (how == 7) assert_names(&err, "virtual dataset");
        if (how == 9 || how == 11) assert_names(&err, "link");
        if (how == 10) assert_names(&err, "impossibly long");
    }
    free(intact);
    free(master);
}

/* Masters with a manifest that is right for what they say. */
struct Lie {
    const char *name, *reason;
    int64_t n_shards;
    int shard;
    int64_t begin, end, next_begin, next_end; /* two pieces of a tensor [2, 3] */
};

static bool forge(const char *path, const struct Lie *lie, struct Error *err) {
    const struct CkptHeader header = {CKPT_FORMAT, CKPT_VERSION_SHARDED, 3, "x"};
    const int64_t shape[] = {2, 3};
    const uint32_t crc32 = 1;
    struct CkptWriter *w;
    if (!ckpt_writer_create(path, &header, 0, &w, err)) return false;
    ckpt_contents_add_tensor(&w->contents, "a/b", lie->name, 2, shape);
    ckpt_contents_add_piece(&w->contents, lie->shard, lie->begin, lie->end, &crc32);
    ckpt_contents_add_piece(&w->contents, 0, lie->next_begin, lie->next_end, &crc32);
    return ckpt_set_int(w, CKPT_KEY_SHARDS, lie->n_shards, err) &&
           ckpt_set_int(w, CKPT_KEY_SAVE_ID, 5, err) && ckpt_writer_commit(w, err);
}

static void test_lies(void **state) {
    static const struct Lie lies[] = {
        {"x", NULL, 2, 1, 0, 4, 4, 6}, /* the truth */
        {"x", "expected 1 to", 0, 1, 0, 4, 4, 6},
        {"x", "expected 1 to", INT64_C(1) << 40, 1, 0, 4, 4, 6},
        {"x", "piece 0", 1, 1, 0, 4, 4, 6},
        {"x", "piece 0", 2, -1, 0, 4, 4, 6},
        {"x", "piece 0", 2, 1, -1, 4, 4, 6},
        {"x", "piece 1", 2, 1, 0, 4, 3, 6},
        {"x", "piece 1", 2, 1, 0, 4, 4, 7},
        {"x", "do not cover", 2, 1, 0, 4, 5, 6},
        {"x", "do not cover", 2, 1, 1, 4, 4, 6},
        {"x", "do not cover", 2, 1, 0, 4, 4, 5},
        {"../x", "tensor 0", 2, 1, 0, 4, 4, 6},
        {"", "tensor 0", 2, 1, 0, 4, 4, 6},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct Error err;
        struct Ckpt *ckpt;
        char *path = scratch_path(*state, "lie.h5");
        check(forge(path, &lies[i], &err));
        if (lies[i].reason) {
            check_error(ckpt_open(path, &ckpt, &err), lies[i].reason);
            assert_names(&err, path);
        } else {
            check(ckpt_open(path, &ckpt, &err));
            check_error(ckpt_verify(ckpt, &err), "rank-000-of-002.h5");
            ckpt_close(ckpt);
        }
        free(path);
    }
}

/* ---- shards that do not make a checkpoint ---- */

static void write_part(const struct CkptSave *save, int shard, int64_t n_rows, int64_t begin,
                       int64_t end) {
    struct Error err;
    struct CkptWriter *w;
    const int64_t shape[] = {n_rows, 2};
    const float data[16] = {1, 2, 3};
    check(ckpt_shard_open(save, shard, &w, &err));
    check(ckpt_shard_write_f32(w, "a/b", "x", 2, shape, begin, end, data, &err));
    check(ckpt_writer_commit(w, &err));
}

static void test_parts_that_do_not_fit(void **state) {
    struct Error err;
    struct CkptWriter *w;
    struct CkptSave save = small_ckpt_save(*state, 3, 1, 2);
    write_part(&save, 0, 4, 0, 5);
    check_error(ckpt_master_open(&save, &w, &err), "shard 1 of 2: cannot open");
    write_part(&save, 1, 4, 6, 8);
    check_error(ckpt_master_open(&save, &w, &err), "do not cover it: expected element 5 of 8");
    write_part(&save, 1, 4, 4, 8);
    check_error(ckpt_master_open(&save, &w, &err), "do not cover it");
    write_part(&save, 1, 5, 5, 10);
    check_error(ckpt_master_open(&save, &w, &err), "shard 0 has it in shape [4, 2], shard 1");
    assert_int_equal(scratch_count(*state, ".h5"), 0);
    assert_int_equal(scratch_count(*state, ".partial"), 0);
    write_part(&save, 1, 4, 5, 8);
    check(ckpt_master_open(&save, &w, &err));
    check(ckpt_writer_commit(w, &err));
    assert_int_equal(scratch_count(*state, ".h5"), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_parts),
        WITH_FOLDER(test_shards_of_others),
        WITH_FOLDER(test_flipped_bytes),
        WITH_FOLDER(test_virtual_shard),
        WITH_FOLDER(test_a_shard_is_no_checkpoint),
        WITH_FOLDER(test_tampering),
        WITH_FOLDER(test_lies),
        WITH_FOLDER(test_parts_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
