/* HDF5 arrays: every element type comes back bit for bit through every layout; what HDF5 itself
 * writes is read; strings and chunks that lie are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "data/h5_array.h"
#include "data/h5_zstd.h"
#include "h5_fixture.h"
#include "philox.h"
#include "scratch.h"

static void fill_random(unsigned char *bytes, int64_t n_bytes, uint64_t seed) {
    for (int64_t i = 0; i < n_bytes; i++) /* low entropy, so that compression has work */
        bytes[i] = (unsigned char)(philox(seed, (uint32_t)i, 0, 0, 0).word[0] & 0x33);
}

/* ---- arrays ---- */

static void test_elements_in_all_layouts(void **state) {
    (void)state;
    static const int elements[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64,
                                   DTYPE_I64, H5_U8,      H5_U32};
    static const struct {
        int64_t chunk_rows;
        int zstd_level;
    } layouts[] = {{0, 0}, {1, 0}, {4, 3}, {7, 1}, {100, 19}};
    enum {
        ROWS = 11,
        ELEMS = 3 * 5,
        N = sizeof elements / sizeof *elements,
        BYTES = ROWS * ELEMS * 8
    };
    unsigned char in[BYTES], out[BYTES];
    struct Error err;
    for (int e = 0; e < N; e++) {
        for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++) {
            int64_t dims[3] = {ROWS, 3, 5}, row_bytes = ELEMS * h5_element_bytes(elements[e]);
            struct H5Layout layout = {.element = elements[e],
                                      .rank = 3,
                                      .dims = dims,
                                      .chunk_rows = layouts[l].chunk_rows,
                                      .zstd_level = layouts[l].zstd_level};
            struct H5Array array;
            fill_random(in, ROWS * row_bytes, (uint64_t)(10 * e) + l);
            hid_t file = h5_fixture_create("elements.h5");
            check(h5_array_create(file, "a", &layout, &array, &err));
            check(h5_array_write(&array, 0, ROWS, in, &err));
            h5_array_close(&array);
            assert_true(H5Fclose(file) >= 0);
            file = h5_fixture_open("elements.h5");
            check(h5_array_open(file, "a", &array, &err));
            assert_int_equal(array.element, elements[e]);
            assert_int_equal(array.row_bytes, row_bytes);
            assert_int_equal(array.chunk_rows, layouts[l].chunk_rows);
            for (int64_t first = 0; first < ROWS; first++)
                for (int64_t n = 0; n <= ROWS - first; n++) {
                    memset(out, 0xEE, sizeof out);
                    check(h5_array_read(&array, first, n, out, &err));
                    assert_memory_equal(out, in + first * row_bytes, (size_t)(n * row_bytes));
                    if (n < ROWS) assert_int_equal(out[n * row_bytes], 0xEE);
                }
            check_error(h5_array_read(&array, 8, 4, out, &err), "rows 8 to 11");
            check_error(h5_array_read(&array, -1, 1, out, &err), "rows -1 to -1");
            h5_array_close(&array);
            H5Fclose(file);
        }
    }
}

static void test_append_and_read_back_while_writing(void **state) {
    (void)state;
    enum { ROWS = 60, ELEMS = 9 };
    struct Error err;
    struct H5Array array;
    float in[ROWS * ELEMS], out[ROWS * ELEMS];
    int64_t dims[2] = {0, ELEMS};
    struct H5Layout layout = {
        .element = DTYPE_F32, .rank = 2, .dims = dims, .chunk_rows = 8, .zstd_level = 3};
    for (int i = 0; i < ROWS * ELEMS; i++) in[i] = (float)i * 0.5f;
    hid_t file = h5_fixture_create("append.h5");
    check(h5_array_create(file, "a", &layout, &array, &err));
    for (int64_t at = 0, n = 0; at < ROWS; at += n, n = (n + 1) % 6) {
        if (n > ROWS - at) n = ROWS - at;
        check(h5_array_append(&array, n, in + at * ELEMS, &err));
        check(h5_array_read(&array, 0, at + n, out, &err));
        assert_memory_equal(out, in, (size_t)((at + n) * ELEMS) * sizeof *in);
    }
    assert_int_equal(array.n_rows, ROWS);
    h5_array_close(&array);
    check(h5_array_open(file, "a", &array, &err));
    check(h5_array_read(&array, 0, ROWS, out, &err));
    assert_memory_equal(out, in, sizeof in);
    h5_array_close(&array);
    H5Fclose(file);
}

static void test_texts_and_scalars(void **state) {
    (void)state;
    static const char *const texts[] = {"", "a red square moving left",
                                        "ein größerer 红色 Kreis 🎈"};
    struct Error err;
    struct H5Array array;
    char *text;
    int64_t dims[1] = {0};
    struct H5Layout layout = {.element = H5_TEXT, .rank = 1, .dims = dims, .chunk_rows = 2};
    struct H5Layout scalar = {.element = DTYPE_I64};
    hid_t file = h5_fixture_create("texts.h5");
    check(h5_array_create(file, "t", &layout, &array, &err));
    for (int i = 0; i < 3; i++) check(h5_text_append(&array, texts[i], &err));
    check(h5_text_append(&array, "bad \xC3( here", &err));
    h5_array_close(&array);
    int64_t value = -7, back = 0;
    check(h5_array_create(file, "s", &scalar, &array, &err));
    check(h5_array_write(&array, 0, 1, &value, &err));
    h5_array_close(&array);
    H5Fclose(file);

    file = h5_fixture_open("texts.h5");
    check(h5_array_open(file, "t", &array, &err));
    assert_int_equal(array.element, H5_TEXT);
    for (int i = 0; i < 3; i++) {
        check(h5_text_read(&array, i, 100, &text, &err));
        assert_string_equal(text, texts[i]);
        free(text);
    }
    check_error(h5_text_read(&array, 3, 100, &text, &err), "row 3: the text is not valid UTF-8");
    check_error(h5_text_read(&array, 1, 23, &text, &err), "at most 23 bytes, got 24");
    check_error(h5_text_read(&array, 4, 100, &text, &err), "rows 4 to 4");
    h5_array_close(&array);
    check(h5_array_open(file, "s", &array, &err));
    check(h5_array_read(&array, 0, 1, &back, &err));
    assert_int_equal(back, value);
    h5_array_close(&array);
    H5Fclose(file);
}

/* Every bit of the heap in which strings lie: a flip changes a text or is noticed; nothing loops.
 */
static void test_damaged_string_heap(void **state) {
    (void)state;
    static const char *const texts[] = {"one", "", "a longer text of many words"};
    struct Error err;
    struct H5Array array;
    int64_t dims[1] = {0};
    struct H5Layout layout = {.element = H5_TEXT, .rank = 1, .dims = dims, .chunk_rows = 4};
    hid_t file = h5_fixture_create("heap.h5");
    check(h5_array_create(file, "t", &layout, &array, &err));
    for (int i = 0; i < 3; i++) check(h5_text_append(&array, texts[i], &err));
    h5_array_close(&array);
    H5Fclose(file);
    char *path = scratch_path(scratch_folder(), "heap.h5");
    size_t n_file, at = 0;
    unsigned char *bytes = scratch_read(path, &n_file);
    while (at + 4 < n_file && memcmp(bytes + at, "GCOL", 4) != 0) at++;
    assert_true(at + 160 < n_file);
    int n_errors = 0, n_good = 0, n_changed = 0;
    for (size_t bit = 0; bit < 160 * 8; bit++) {
        bytes[at + bit / 8] ^= (unsigned char)(1u << bit % 8);
        scratch_write(path, bytes, n_file);
        bytes[at + bit / 8] ^= (unsigned char)(1u << bit % 8);
        file = h5_fixture_open("heap.h5");
        check(h5_array_open(file, "t", &array, &err));
        for (int i = 0; i < 3; i++) {
            char *text;
            if (!h5_text_read(&array, i, 100, &text, &err)) {
                assert_non_null(strstr(err.text, "heap.h5"));
                n_errors++;
                continue;
            }
            strcmp(text, texts[i]) ? n_changed++ : n_good++;
            free(text);
        }
        h5_array_close(&array);
        H5Fclose(file);
    }
    /* the eight bytes before a text are its length, which the reference repeats */
    while (memcmp(bytes + at, "one", 3) != 0) at++;
    for (size_t bit = 0; bit < 64; bit++) {
        bytes[at - 8 + bit / 8] ^= (unsigned char)(1u << bit % 8);
        scratch_write(path, bytes, n_file);
        bytes[at - 8 + bit / 8] ^= (unsigned char)(1u << bit % 8);
        char *text;
        file = h5_fixture_open("heap.h5");
        check(h5_array_open(file, "t", &array, &err));
        check_error(h5_text_read(&array, 0, 100, &text, &err), "not where its reference says");
        h5_array_close(&array);
        H5Fclose(file);
    }
    free(bytes);
    free(path);
    assert_true(n_errors > 300 && n_good > 1280);
    assert_in_range(n_changed, 1, 8 * 30); /* bits of the texts themselves, less what is no UTF-8 */
}

/* ---- what HDF5 itself reads and writes ---- */

/* A chunked array of 20 x 6 u32 in chunks of 8 rows, through a pipeline that `set` chooses. */
enum { FOREIGN_ROWS = 20, FOREIGN_ELEMS = 6 };

static void write_foreign(hid_t file, const char *name, bool (*set)(hid_t),
                          const uint32_t *values) {
    hsize_t dims[2] = {FOREIGN_ROWS, FOREIGN_ELEMS}, chunk[2] = {8, FOREIGN_ELEMS};
    hid_t space = H5Screate_simple(2, dims, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_chunk(list, 2, chunk) >= 0 && set(list));
    hid_t dataset = H5Dcreate2(file, name, H5T_STD_U32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0);
    assert_true(H5Dwrite(dataset, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(dataset);
    H5Pclose(list);
    H5Sclose(space);
}

static bool set_plain(hid_t list) {
    return list >= 0;
}
static bool set_deflate(hid_t list) {
    return H5Pset_deflate(list, 6) >= 0;
}
static bool set_fletcher(hid_t list) {
    return H5Pset_fletcher32(list) >= 0;
}
static bool set_shuffle(hid_t list) {
    return H5Pset_shuffle(list) >= 0;
}
static bool set_shuffle_deflate_fletcher(hid_t list) {
    return set_shuffle(list) && set_deflate(list) && set_fletcher(list);
}
static bool set_zstd(hid_t list) {
    return h5_zstd_set(list, 5);
}
static bool set_shuffle_zstd_fletcher(hid_t list) {
    return set_shuffle(list) && set_zstd(list) && set_fletcher(list);
}
static bool set_nbit(hid_t list) {
    return H5Pset_nbit(list) >= 0;
}
static bool set_wrong_order(hid_t list) {
    return set_deflate(list) && set_shuffle(list);
}
static bool set_twice(hid_t list) {
    return set_zstd(list) && set_deflate(list);
}

static void test_foreign_filters(void **state) {
    (void)state;
    static bool (*const accepted[])(hid_t) = {
        set_plain,
        set_deflate,
        set_fletcher,
        set_shuffle,
        set_zstd,
        set_shuffle_deflate_fletcher,
        set_shuffle_zstd_fletcher,
    };
    static bool (*const refused[])(hid_t) = {set_nbit, set_wrong_order, set_twice};
    enum { N_ACCEPTED = sizeof accepted / sizeof *accepted, N_REFUSED = 3 };
    struct Error err;
    struct H5Array array;
    uint32_t in[FOREIGN_ROWS * FOREIGN_ELEMS], out[FOREIGN_ROWS * FOREIGN_ELEMS];
    for (int i = 0; i < FOREIGN_ROWS * FOREIGN_ELEMS; i++)
        in[i] = philox(4, (uint32_t)i, 0, 0, 0).word[0]; /* all bytes, odd sums for fletcher32 */
    for (int i = 0; i < N_ACCEPTED; i++) {
        hid_t file = h5_fixture_create("foreign.h5");
        write_foreign(file, "a", accepted[i], in);
        H5Fclose(file);
        file = h5_fixture_open("foreign.h5");
        check(h5_array_open(file, "a", &array, &err));
        check(h5_array_read(&array, 0, FOREIGN_ROWS, out, &err));
        assert_memory_equal(out, in, sizeof in);
        h5_array_close(&array);
        H5Fclose(file);
    }
    for (int i = 0; i < N_REFUSED; i++) {
        hid_t file = h5_fixture_create("foreign.h5");
        write_foreign(file, "a", refused[i], in);
        check_error(h5_array_open(file, "a", &array, &err), "'/a' of ");
        assert_non_null(strstr(err.text, "expected"));
        H5Fclose(file);
    }
}

static void test_own_arrays_through_the_library(void **state) {
    (void)state;
    struct Error err;
    struct H5Array array;
    uint32_t in[FOREIGN_ROWS * FOREIGN_ELEMS], out[FOREIGN_ROWS * FOREIGN_ELEMS] = {0};
    int64_t dims[2] = {FOREIGN_ROWS, FOREIGN_ELEMS};
    struct H5Layout layout = {
        .element = H5_U32, .rank = 2, .dims = dims, .chunk_rows = 8, .zstd_level = 3};
    fill_random((unsigned char *)in, sizeof in, 9);
    hid_t file = h5_fixture_create("own.h5");
    check(h5_array_create(file, "a", &layout, &array, &err));
    check(h5_array_write(&array, 0, FOREIGN_ROWS, in, &err));
    h5_array_close(&array);
    H5Fclose(file);
    file = h5_fixture_open("own.h5");
    hid_t dataset = H5Dopen2(file, "a", H5P_DEFAULT);
    assert_true(H5Dread(dataset, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0);
    assert_memory_equal(out, in, sizeof in);
    H5Dclose(dataset);
    H5Fclose(file);
}

/* ---- chunks that are not what they claim ---- */

/* Writes the first n_bytes of `bytes` as the only stored chunk of an array of 8 x 6 u32. */
static bool read_forged_chunk(bool (*set)(hid_t), uint32_t left_out, const void *bytes,
                              size_t n_bytes, struct Error *err) {
    hsize_t dims[2] = {8, 6}, offset[2] = {0, 0};
    hid_t file = h5_fixture_create("forged.h5");
    hid_t space = H5Screate_simple(2, dims, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_chunk(list, 2, dims) >= 0 && set(list));
    hid_t dataset = H5Dcreate2(file, "a", H5T_STD_U32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(H5Dwrite_chunk(dataset, H5P_DEFAULT, left_out, offset, n_bytes, bytes) >= 0);
    H5Dclose(dataset);
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(file);
    file = h5_fixture_open("forged.h5");
    struct H5Array array;
    uint32_t out[8 * 6];
    bool good = h5_array_open(file, "a", &array, err) && h5_array_read(&array, 0, 8, out, err);
    h5_array_close(&array);
    H5Fclose(file);
    return good;
}

static void test_forged_chunks(void **state) {
    (void)state;
    /* One Zstandard frame each, of a single run-length block: 192, 188, 65536 zeros. */
    static const unsigned char exact[] = {0x28, 0xB5, 0x2F, 0xFD, 0x20, 192, 0x03, 0x06, 0x00, 0};
    static const unsigned char brief[] = {0x28, 0xB5, 0x2F, 0xFD, 0x20, 188, 0xE3, 0x05, 0x00, 0};
    static const unsigned char large[] = {0x28, 0xB5, 0x2F, 0xFD, 0x60, 0x00,
                                          0xFF, 0x03, 0x00, 0x08, 0};
    static const unsigned char deflated_zero[] = {0x78, 0x9C, 0x63, 0x00, 0x00,
                                                  0x00, 0x01, 0x00, 0x01};
    unsigned char garbage[512];
    struct Error err;
    fill_random(garbage, sizeof garbage, 77);
    check(read_forged_chunk(set_zstd, 0, exact, sizeof exact, &err));
    check_error(read_forged_chunk(set_zstd, 0, exact, sizeof exact - 1, &err), "'/a' of ");
    check_error(read_forged_chunk(set_zstd, 0, brief, sizeof brief, &err), "does not decompress");
    check_error(read_forged_chunk(set_zstd, 0, large, sizeof large, &err), "does not decompress");
    check_error(read_forged_chunk(set_zstd, 0, garbage, 100, &err), "does not decompress");
    check_error(read_forged_chunk(set_deflate, 0, deflated_zero, sizeof deflated_zero, &err),
                "does not decompress");
    check_error(read_forged_chunk(set_fletcher, 0, garbage, 196, &err), "fletcher32");
    check_error(read_forged_chunk(set_fletcher, 0, garbage, 3, &err), "fletcher32");
    check_error(read_forged_chunk(set_shuffle, 0, garbage, 191, &err), "191 bytes instead of 192");
    check_error(read_forged_chunk(set_shuffle, 0, garbage, 512, &err), "claims 512 bytes");
    check(read_forged_chunk(set_zstd, 1, garbage, 192, &err)); /* left the filter out, honestly */
    check_error(read_forged_chunk(set_zstd, 1, garbage, 100, &err), "100 bytes instead of 192");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements_in_all_layouts),
        cmocka_unit_test(test_append_and_read_back_while_writing),
        cmocka_unit_test(test_texts_and_scalars),
        cmocka_unit_test(test_damaged_string_heap),
        cmocka_unit_test(test_foreign_filters),
        cmocka_unit_test(test_own_arrays_through_the_library),
        cmocka_unit_test(test_forged_chunks),
    };
    return cmocka_run_group_tests(tests, scratch_group_set_up, scratch_group_tear_down);
}
