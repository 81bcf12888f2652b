/* HDF5 files and headers: what is no array of ours is refused, and so is everything that leads out
 * of the file; a file appears complete or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "check.h"
#include "data/atomic_file.h"
#include "data/h5_array.h"
#include "data/h5_file.h"
#include "h5_fixture.h"
#include "scratch.h"

/* ---- headers that are not what we read ---- */

static hid_t create_dataset(hid_t file, hid_t type, int rank, const hsize_t *dims, hid_t list) {
    hid_t space = rank >= 0 ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_NULL);
    hid_t dataset = H5Dcreate2(file, "a", type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0);
    H5Sclose(space);
    return dataset;
}

static void make_external_storage(hid_t file) {
    hsize_t dims[1] = {4};
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    char *raw = scratch_path(scratch_folder(), "outside.raw");
    assert_true(H5Pset_external(list, raw, 0, 16) >= 0);
    H5Dclose(create_dataset(file, H5T_STD_U32LE, 1, dims, list));
    H5Pclose(list);
    free(raw);
}

static void make_virtual(hid_t file) {
    hsize_t dims[1] = {4};
    hid_t list = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, dims, NULL);
    char *other = scratch_path(scratch_folder(), "elements.h5");
    assert_true(H5Pset_virtual(list, space, other, "a", space) >= 0);
    H5Dclose(create_dataset(file, H5T_STD_U32LE, 1, dims, list));
    H5Sclose(space);
    H5Pclose(list);
    free(other);
}

static void make_big_endian(hid_t file) {
    hsize_t dims[1] = {4};
    H5Dclose(create_dataset(file, H5T_IEEE_F32BE, 1, dims, H5P_DEFAULT));
}
static void make_unmarked_u16(hid_t file) {
    hsize_t dims[1] = {4};
    H5Dclose(create_dataset(file, H5T_STD_U16LE, 1, dims, H5P_DEFAULT));
}
static void make_null_space(hid_t file) {
    H5Dclose(create_dataset(file, H5T_IEEE_F32LE, -1, NULL, H5P_DEFAULT));
}
static void make_never_written(hid_t file) { /* 8 EiB are claimed, nothing is stored */
    hsize_t dims[2] = {1ull << 30, 1ull << 30};
    H5Dclose(create_dataset(file, H5T_IEEE_F64LE, 2, dims, H5P_DEFAULT));
}
static void make_unstored(hid_t file) {
    hsize_t dims[2] = {1ull << 20, 1ull << 20};
    H5Dclose(create_dataset(file, H5T_IEEE_F32LE, 2, dims, H5P_DEFAULT));
}

static void make_chunked(hid_t file, hsize_t rows, hsize_t columns, hsize_t chunk_rows,
                         hsize_t chunk_columns) {
    hsize_t dims[2] = {rows, columns}, chunk[2] = {chunk_rows, chunk_columns};
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_chunk(list, 2, chunk) >= 0);
    H5Dclose(create_dataset(file, H5T_IEEE_F32LE, 2, dims, list));
    H5Pclose(list);
}
static void make_cut_rows(hid_t file) {
    make_chunked(file, 8, 8, 2, 4);
}
static void make_missing_chunks(hid_t file) {
    make_chunked(file, 8, 8, 2, 8);
}
static void make_huge_chunk(hid_t file) {
    make_chunked(file, 1 << 20, 1 << 10, 1 << 19, 1 << 10);
}
static void make_group(hid_t file) {
    H5Gclose(H5Gcreate2(file, "a", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}
static void make_nothing(hid_t file) {
    assert_true(file >= 0);
}

static void make_soft_link(hid_t file) {
    h5_fixture_array(file, "real");
    assert_true(H5Lcreate_soft("/real", file, "a", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_external_link(hid_t file) {
    char *other = scratch_path(scratch_folder(), "elements.h5");
    assert_true(H5Lcreate_external(other, "/a", file, "a", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    free(other);
}

static void test_refused_headers(void **state) {
    (void)state;
    static const struct {
        void (*make)(hid_t file);
        const char *reason;
    } cases[] = {
        {make_external_storage, "stored in other files"},
        {make_virtual, "virtual"},
        {make_big_endian, "little-endian"},
        {make_unmarked_u16, "another type"},
        {make_null_space, "expected an array"},
        {make_never_written, "impossible dimensions"},
        {make_unstored, "bytes are stored"},
        {make_cut_rows, "chunks of whole rows"},
        {make_missing_chunks, "expected 4 chunks, 0 are stored"},
        {make_huge_chunk, "chunks of at most"},
        {make_group, "expected a dataset, got a group"},
        {make_nothing, "has no 'a'"},
        {make_soft_link, "link to somewhere else"},
        {make_external_link, "link to somewhere else"},
    };
    struct Error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hid_t file = h5_fixture_create("refused.h5");
        cases[i].make(file);
        H5Fclose(file);
        file = h5_fixture_open("refused.h5");
        struct H5Array array;
        check_error(h5_array_open(file, "a", &array, &err), cases[i].reason);
        assert_non_null(strstr(err.text, "refused.h5"));
        H5Fclose(file);
    }
}

/* A link in the middle of a path is refused like one at its end, and not even looked through. */
static void test_links_on_the_way(void **state) {
    (void)state;
    struct Error err;
    struct H5Array array;
    hid_t object, group, file = h5_fixture_create("target.h5");
    check(h5_create_group(file, "g", &group, &err));
    h5_fixture_array(group, "a");
    H5Gclose(group);
    H5Fclose(file);
    char *other = scratch_path(scratch_folder(), "target.h5");
    file = h5_fixture_create("linking.h5");
    check(h5_create_group(file, "g", &group, &err));
    h5_fixture_array(group, "a");
    H5Gclose(group);
    assert_true(H5Lcreate_external(other, "/g", file, "out", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/g", file, "soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_hard(file, "/g", file, "hard", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    free(other);
    file = h5_fixture_open("linking.h5");
    assert_false(h5_exists(file, "out/a"));
    check_error(h5_array_open(file, "out/a", &array, &err), "'out'");
    check_error(h5_array_open(file, "soft/a", &array, &err), "'soft'");
    check_error(h5_open_object(file, "out", H5I_GROUP, &object, &err), "somewhere else");
    check_error(h5_array_open(file, "g/", &array, &err), "linking.h5");
    check_error(h5_array_open(file, "", &array, &err), "linking.h5");
    check(h5_array_open(file, "g/a", &array, &err));
    h5_array_close(&array);
    check(h5_array_open(file, "hard/a", &array, &err));
    h5_array_close(&array);
    H5Fclose(file);
}

/* ---- files ---- */

static bool opens(const char *path, struct Error *err) {
    hid_t file;
    bool good = h5_open_read(path, &file, err);
    if (good) H5Fclose(file);
    return good;
}

static void test_wrong_files(void **state) {
    (void)state;
    struct Error err;
    hid_t file;
    char *path = scratch_path(scratch_folder(), "wrong");
    check_error(opens(path, &err), "No such file");
    check_error(opens(scratch_folder(), &err), "is not a file");
    scratch_write(path, "", 0);
    check_error(opens(path, &err), "is empty");
    scratch_write(path, "not HDF5 at all, but long enough to be looked at", 48);
    check_error(opens(path, &err), "is not an HDF5 file");
    free(path);
    path = scratch_path(scratch_folder(), "no/such/folder.h5");
    check_error(h5_create(path, &file, &err), "No such file");
    free(path);
    unsigned mask = 99;
    assert_true(H5PLget_loading_state(&mask) >= 0);
    assert_int_equal(mask, 0);
}

static void test_commit_and_discard(void **state) {
    (void)state;
    struct Error err;
    char *path = scratch_path(scratch_folder(), "commit.h5"), *partial = atomic_file_partial(path);
    hid_t file;
    check(h5_create(partial, &file, &err));
    h5_discard(file, partial);
    assert_false(scratch_exists(partial) || scratch_exists(path));
    check(h5_create(partial, &file, &err));
    h5_fixture_array(file, "a");
    check(h5_commit(file, partial, path, &err));
    assert_false(scratch_exists(partial));
    check(opens(path, &err));
    check(h5_create(partial, &file, &err));
    check_error(h5_commit(file, partial, scratch_folder(), &err),
                scratch_folder()); /* a folder is in the way */
    assert_false(scratch_exists(partial));
    free(partial);
    free(path);
}

/* Reading past the end of a file gives an error, where the library's own driver gives zeros. */
static void test_cut_while_open(void **state) {
    (void)state;
    struct Error err;
    struct H5Array array;
    float values[4];
    char *path = scratch_path(scratch_folder(), "cut.h5");
    hid_t file = h5_fixture_create("cut.h5");
    h5_fixture_array(file, "a");
    H5Fclose(file);
    file = h5_fixture_open("cut.h5");
    check(h5_array_open(file, "a", &array, &err));
    check(h5_array_read(&array, 0, 4, values, &err));
    assert_true(values[3] == 4);
    haddr_t data = H5Dget_offset(array.dataset);
    h5_array_close(&array);
    H5Fclose(file);
    file = h5_fixture_open("cut.h5");
    check(h5_array_open(file, "a", &array, &err));
    assert_int_equal(truncate(path, (off_t)data + 8), 0);
    check_error(h5_array_read(&array, 0, 4, values, &err), "cut.h5");
    h5_array_close(&array);
    H5Fclose(file);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_headers),
        cmocka_unit_test(test_links_on_the_way),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_commit_and_discard),
        cmocka_unit_test(test_cut_while_open),
    };
    return cmocka_run_group_tests(tests, scratch_group_set_up, scratch_group_tear_down);
}
