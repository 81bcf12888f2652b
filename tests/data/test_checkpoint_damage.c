/* Damaged checkpoints: a flipped byte, a cut, a change that leaves a perfect HDF5 file, a file of
 * someone else are all noticed, and the sentence names what is damaged. */
#define _GNU_SOURCE /* memmem */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint_fixture.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"
#include "scratch.h"

/* Every byte of the file in turn: either the file is refused, or the byte carried nothing. */
static void test_flipped_bytes(void **state) {
    struct Error err;
    size_t n_bytes;
    char *path = small_ckpt_make(*state, 3, 1), *damaged = scratch_path(*state, "damaged.h5");
    unsigned char *bytes = scratch_read(path, &n_bytes);
    int n_found = 0, n_tried = 0, n_named = 0;
    for (size_t at = 0; at < n_bytes; at += 3 + at % 7) {
        bytes[at] ^= (unsigned char)(1u << at % 8);
        scratch_write(damaged, bytes, n_bytes);
        bytes[at] ^= (unsigned char)(1u << at % 8);
        n_tried++;
        if (small_ckpt_read(damaged, 3, &err)) continue;
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
    char *path = small_ckpt_make(*state, 3, 0), *damaged = scratch_path(*state, "damaged.h5");
    unsigned char *bytes = scratch_read(path, &n_bytes);
    float *data = xmalloc(SMALL_CKPT_MAX_ELEMS * sizeof *data);
    for (int t = 0; t < SMALL_CKPT_TENSORS; t++) {
        size_t n_data = (size_t)small_ckpt_elems(t) * sizeof *data;
        small_ckpt_fill(data, t, 3);
        unsigned char *place = memmem(bytes, n_bytes, data, n_data);
        assert_non_null(place);
        place[n_data / 2] ^= 0x10;
        scratch_write(damaged, bytes, n_bytes);
        place[n_data / 2] ^= 0x10;
        assert_false(small_ckpt_read(damaged, 3, &err));
        assert_names(&err, small_ckpt_tensors[t].name);
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
        char *path = small_ckpt_make(*state, 3, 1);
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(file >= 0 && tamper(file, how, &err));
        H5Fclose(file);
        assert_false(small_ckpt_read(path, 3, &err));
        assert_names(&err, "manifest");
        free(path);
    }
}

static void test_truncation(void **state) {
    struct Error err;
    size_t n_bytes;
    char *path = small_ckpt_make(*state, 3, 1), *cut = scratch_path(*state, "cut.h5");
    unsigned char *bytes = scratch_read(path, &n_bytes);
    int n_tried = 0;
    for (size_t length = 0; length < n_bytes; length += 1 + n_bytes / 300, n_tried++) {
        scratch_write(cut, bytes, length);
        assert_false(small_ckpt_read(cut, 3, &err));
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
    assert_true(h5_attr_write_i64(file, "format_version", CKPT_VERSION_SHARDED + 1, &err));
    H5Fclose(file);
    assert_false(ckpt_open(path, &ckpt, &err));
    assert_names(&err, "version 3");

    assert_true(h5_create(path, &file, &err));
    assert_true(h5_attr_write_text(file, "format", CKPT_FORMAT, &err));
    assert_true(h5_attr_write_i64(file, "format_version", CKPT_VERSION_SINGLE, &err));
    H5Fclose(file);
    assert_false(ckpt_open(path, &ckpt, &err));
    assert_names(&err, "never finished");
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_flipped_bytes),   WITH_FOLDER(test_flipped_data_names_the_tensor),
        WITH_FOLDER(test_tampering),       WITH_FOLDER(test_truncation),
        WITH_FOLDER(test_files_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
