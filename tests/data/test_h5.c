/* HDF5 access: every element type comes back bit for bit through every layout; what HDF5 itself
 * writes is read; chunks and headers that lie are refused, and so is everything that leads out of
 * the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/atomic_file.h"
#include "data/h5_array.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"
#include "data/h5_zstd.h"
#include "philox.h"
#include "scratch.h"

#define check(call)                                                                                \
    do {                                                                                           \
        if (!(call)) fail_msg("%s: %s", #call, err.text);                                          \
    } while (0)
#define check_error(call, part)                                                                    \
    do {                                                                                           \
        if (call) fail_msg("%s succeeded", #call);                                                 \
        if (!strstr(err.text, part)) fail_msg("expected '%s' in: %s", part, err.text);             \
    } while (0)

static char *folder;

static hid_t create(const char *name) {
    struct Error err;
    hid_t file;
    char *path = scratch_path(folder, name);
    check(h5_create(path, &file, &err));
    free(path);
    return file;
}

static hid_t open_read(const char *name) {
    struct Error err;
    hid_t file;
    char *path = scratch_path(folder, name);
    check(h5_open_read(path, &file, &err));
    free(path);
    return file;
}

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
            hid_t file = create("elements.h5");
            check(h5_array_create(file, "a", &layout, &array, &err));
            check(h5_array_write(&array, 0, ROWS, in, &err));
            h5_array_close(&array);
            assert_true(H5Fclose(file) >= 0);
            file = open_read("elements.h5");
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
    hid_t file = create("append.h5");
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
    hid_t file = create("texts.h5");
    check(h5_array_create(file, "t", &layout, &array, &err));
    for (int i = 0; i < 3; i++) check(h5_text_append(&array, texts[i], &err));
    check(h5_text_append(&array, "bad \xC3( here", &err));
    h5_array_close(&array);
    int64_t value = -7, back = 0;
    check(h5_array_create(file, "s", &scalar, &array, &err));
    check(h5_array_write(&array, 0, 1, &value, &err));
    h5_array_close(&array);
    H5Fclose(file);

    file = open_read("texts.h5");
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
    hid_t file = create("heap.h5");
    check(h5_array_create(file, "t", &layout, &array, &err));
    for (int i = 0; i < 3; i++) check(h5_text_append(&array, texts[i], &err));
    h5_array_close(&array);
    H5Fclose(file);
    char *path = scratch_path(folder, "heap.h5");
    size_t n_file, at = 0;
    unsigned char *bytes = scratch_read(path, &n_file);
    while (at + 4 < n_file && memcmp(bytes + at, "GCOL", 4) != 0) at++;
    assert_true(at + 160 < n_file);
    int n_errors = 0, n_good = 0, n_changed = 0;
    for (size_t bit = 0; bit < 160 * 8; bit++) {
        bytes[at + bit / 8] ^= (unsigned char)(1u << bit % 8);
        scratch_write(path, bytes, n_file);
        bytes[at + bit / 8] ^= (unsigned char)(1u << bit % 8);
        file = open_read("heap.h5");
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
        file = open_read("heap.h5");
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
        hid_t file = create("foreign.h5");
        write_foreign(file, "a", accepted[i], in);
        H5Fclose(file);
        file = open_read("foreign.h5");
        check(h5_array_open(file, "a", &array, &err));
        check(h5_array_read(&array, 0, FOREIGN_ROWS, out, &err));
        assert_memory_equal(out, in, sizeof in);
        h5_array_close(&array);
        H5Fclose(file);
    }
    for (int i = 0; i < N_REFUSED; i++) {
        hid_t file = create("foreign.h5");
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
    hid_t file = create("own.h5");
    check(h5_array_create(file, "a", &layout, &array, &err));
    check(h5_array_write(&array, 0, FOREIGN_ROWS, in, &err));
    h5_array_close(&array);
    H5Fclose(file);
    file = open_read("own.h5");
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
    hid_t file = create("forged.h5");
    hid_t space = H5Screate_simple(2, dims, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_chunk(list, 2, dims) >= 0 && set(list));
    hid_t dataset = H5Dcreate2(file, "a", H5T_STD_U32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(H5Dwrite_chunk(dataset, H5P_DEFAULT, left_out, offset, n_bytes, bytes) >= 0);
    H5Dclose(dataset);
    H5Pclose(list);
    H5Sclose(space);
    H5Fclose(file);
    file = open_read("forged.h5");
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
    char *raw = scratch_path(folder, "outside.raw");
    assert_true(H5Pset_external(list, raw, 0, 16) >= 0);
    H5Dclose(create_dataset(file, H5T_STD_U32LE, 1, dims, list));
    H5Pclose(list);
    free(raw);
}

static void make_virtual(hid_t file) {
    hsize_t dims[1] = {4};
    hid_t list = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, dims, NULL);
    char *other = scratch_path(folder, "elements.h5");
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

static void make_real(hid_t file, const char *name) {
    struct Error err;
    struct H5Array array;
    int64_t dims[1] = {4};
    struct H5Layout layout = {.element = DTYPE_F32, .rank = 1, .dims = dims};
    float values[4] = {1, 2, 3, 4};
    check(h5_array_create(file, name, &layout, &array, &err));
    check(h5_array_write(&array, 0, 4, values, &err));
    h5_array_close(&array);
}
static void make_soft_link(hid_t file) {
    make_real(file, "real");
    assert_true(H5Lcreate_soft("/real", file, "a", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void make_external_link(hid_t file) {
    char *other = scratch_path(folder, "elements.h5");
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
        hid_t file = create("refused.h5");
        cases[i].make(file);
        H5Fclose(file);
        file = open_read("refused.h5");
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
    hid_t object, group, file = create("target.h5");
    check(h5_create_group(file, "g", &group, &err));
    make_real(group, "a");
    H5Gclose(group);
    H5Fclose(file);
    char *other = scratch_path(folder, "target.h5");
    file = create("linking.h5");
    check(h5_create_group(file, "g", &group, &err));
    make_real(group, "a");
    H5Gclose(group);
    assert_true(H5Lcreate_external(other, "/g", file, "out", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/g", file, "soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_hard(file, "/g", file, "hard", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    free(other);
    file = open_read("linking.h5");
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

/* ---- attributes ---- */

static void test_attributes(void **state) {
    (void)state;
    struct Error err;
    double list[3] = {1.5, -2.25, 1e-300}, back[4];
    int64_t number;
    double real;
    int n;
    char *text;
    hid_t file = create("attributes.h5");
    check(h5_attr_write_i64(file, "i", INT64_MIN + 5, &err));
    check(h5_attr_write_i64(file, "i", -3, &err)); /* replaces */
    check(h5_attr_write_double(file, "d", 0.1, &err));
    check(h5_attr_write_doubles(file, "l", list, 3, &err));
    check(h5_attr_write_text(file, "t", "größer", &err));
    check(h5_attr_write_text(file, "e", "", &err));
    check(h5_attr_write_text(file, "bad", "\xFF", &err));
    H5Fclose(file);
    file = open_read("attributes.h5");
    check(h5_attr_read_i64(file, "i", &number, &err));
    assert_int_equal(number, -3);
    check(h5_attr_read_double(file, "d", &real, &err));
    assert_true(real == 0.1);
    check(h5_attr_read_double(file, "i", &real, &err));
    assert_true(real == -3);
    check(h5_attr_read_doubles(file, "l", back, 4, &n, &err));
    assert_int_equal(n, 3);
    assert_memory_equal(back, list, sizeof list);
    check(h5_attr_read_text(file, "t", 8, &text, &err));
    assert_string_equal(text, "größer");
    free(text);
    check(h5_attr_read_text(file, "e", 8, &text, &err));
    assert_string_equal(text, "");
    free(text);
    assert_false(h5_attr_exists(file, "none"));
    check_error(h5_attr_read_i64(file, "none", &number, &err), "'none'");
    check_error(h5_attr_read_i64(file, "d", &number, &err), "is not one integer");
    check_error(h5_attr_read_i64(file, "t", &number, &err), "is not one integer");
    check_error(h5_attr_read_double(file, "l", &real, &err), "is not one number");
    check_error(h5_attr_read_double(file, "t", &real, &err), "is not one number");
    check_error(h5_attr_read_doubles(file, "l", back, 2, &n, &err), "1 to 2 numbers");
    check_error(h5_attr_read_text(file, "i", 8, &text, &err), "is not a UTF-8 text");
    check_error(h5_attr_read_text(file, "t", 7, &text, &err), "at most 7 bytes");
    check_error(h5_attr_read_text(file, "bad", 7, &text, &err), "UTF-8");
    H5Fclose(file);
}

static void add_attribute(hid_t file, const char *name, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

/* The types in which h5py stores Python's and NumPy's values. */
static void test_foreign_attributes(void **state) {
    (void)state;
    struct Error err;
    int64_t number;
    double real;
    char *text;
    int8_t members[2] = {0, 1};
    hid_t file = create("foreign_attributes.h5");
    hid_t boolean = H5Tenum_create(H5T_STD_I8LE), fixed = H5Tcopy(H5T_C_S1);
    H5Tenum_insert(boolean, "FALSE", &members[0]);
    H5Tenum_insert(boolean, "TRUE", &members[1]);
    H5Tset_size(fixed, 5);
    H5Tset_strpad(fixed, H5T_STR_NULLPAD);
    add_attribute(file, "true", boolean, &members[1]);
    add_attribute(file, "fixed", fixed, "abcde");
    add_attribute(file, "u16", H5T_STD_U16BE, "\x01\x02");
    add_attribute(file, "f32", H5T_IEEE_F32LE, &(float){0.5f});
    H5Tclose(boolean);
    H5Tclose(fixed);
    check(h5_attr_read_i64(file, "true", &number, &err));
    assert_int_equal(number, 1);
    check(h5_attr_read_i64(file, "u16", &number, &err));
    assert_int_equal(number, 0x102);
    check(h5_attr_read_double(file, "f32", &real, &err));
    assert_true(real == 0.5);
    check(h5_attr_read_text(file, "fixed", 5, &text, &err));
    assert_string_equal(text, "abcde");
    free(text);
    check_error(h5_attr_read_text(file, "fixed", 4, &text, &err), "at most 4 bytes");
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
    char *path = scratch_path(folder, "wrong");
    check_error(opens(path, &err), "No such file");
    check_error(opens(folder, &err), "is not a file");
    scratch_write(path, "", 0);
    check_error(opens(path, &err), "is empty");
    scratch_write(path, "not HDF5 at all, but long enough to be looked at", 48);
    check_error(opens(path, &err), "is not an HDF5 file");
    free(path);
    path = scratch_path(folder, "no/such/folder.h5");
    check_error(h5_create(path, &file, &err), "No such file");
    free(path);
    unsigned mask = 99;
    assert_true(H5PLget_loading_state(&mask) >= 0);
    assert_int_equal(mask, 0);
}

static void test_commit_and_discard(void **state) {
    (void)state;
    struct Error err;
    char *path = scratch_path(folder, "commit.h5"), *partial = atomic_file_partial(path);
    hid_t file;
    check(h5_create(partial, &file, &err));
    h5_discard(file, partial);
    assert_false(scratch_exists(partial) || scratch_exists(path));
    check(h5_create(partial, &file, &err));
    make_real(file, "a");
    check(h5_commit(file, partial, path, &err));
    assert_false(scratch_exists(partial));
    check(opens(path, &err));
    check(h5_create(partial, &file, &err));
    check_error(h5_commit(file, partial, folder, &err), folder); /* a folder is in the way */
    assert_false(scratch_exists(partial));
    free(partial);
    free(path);
}

static int set_up(void **state) {
    (void)state;
    folder = scratch_make();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    scratch_remove(folder);
    return 0;
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
        cmocka_unit_test(test_refused_headers),
        cmocka_unit_test(test_links_on_the_way),
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_foreign_attributes),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_commit_and_discard),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
