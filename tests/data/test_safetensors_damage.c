/* Safetensors: no file, however it lies, crashes the reader; it is refused with one sentence that
 * names it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/safetensors_writer.h"
#include "safetensors_fixture.h"
#include "scratch.h"

static void test_hostile_headers(void **state) {
    static const struct {
        const char *header, *what;
    } cases[] = {
        {"", "JSON"},
        {"[]", "object"},
        {"{\"a\":1}", "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", "JSON"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", "dtype"},
        {"{\"a\":{\"dtype\":\"F\\n32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,8]}}", "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
         "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", "dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}",
         "counted"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],\"data_offsets\":[0,8]}}",
         "fit"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}",
         "JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "fit"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,\"8\"]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "begins at byte 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "end at byte 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "'b'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "duplicate"},
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "name"},
        {"{\"\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "name"},
        {"{\"\\u0000\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "JSON"},
        {"{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "JSON"},
        {"{\"__metadata__\":{\"a\":1},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"
         "}}",
         "__metadata__"},
        {"{\"__metadata__\":[],\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "__metadata__"},
    };
    char *path = scratch_path(*state, "bad.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_parts(path, cases[i].header, strlen(cases[i].header), "datadata", 8);
        assert_refused(path, cases[i].what);
    }
    free(path);
}

static void test_deep_nesting(void **state) {
    enum { DEPTH = 1000000 };
    char *path = scratch_path(*state, "deep.safetensors"), *header = xmalloc(2 * DEPTH);
    memset(header, '[', DEPTH);
    memset(header + DEPTH, ']', DEPTH);
    write_parts(path, header, 2 * DEPTH, "", 0);
    assert_refused(path, "JSON");
    free(header);
    free(path);
}

static void test_header_lengths(void **state) {
    static const uint64_t lengths[] = {9, 100, 100000001, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    char *path = scratch_path(*state, "long.safetensors");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        unsigned char bytes[16] = "????????{      }";
        for (int b = 0; b < 8; b++) bytes[b] = (unsigned char)(lengths[i] >> 8 * b);
        scratch_write(path, bytes, sizeof bytes);
        assert_refused(path, "truncated");
    }
    free(path);
}

static void test_truncation(void **state) {
    char *path = scratch_path(*state, "whole.safetensors"),
         *cut = scratch_path(*state, "cut.safetensors");
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    struct Error err;
    const int64_t shape[] = {40, 50};
    float data[2000] = {0};
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "blocks.%d.weight", i);
        safetensors_writer_declare(w, name, i % 2 ? DTYPE_BF16 : DTYPE_F32, 2, shape);
    }
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "blocks.%d.weight", i);
        assert_true(safetensors_write_f32(w, name, data, &err));
    }
    assert_true(safetensors_writer_commit(w, &err));
    size_t n_bytes;
    unsigned char *bytes = scratch_read(path, &n_bytes);
    int n_tried = 0;
    for (size_t length = 0; length < n_bytes; length += 64, n_tried++) {
        scratch_write(cut, bytes, length);
        assert_refused(cut, "cut.safetensors");
    }
    assert_true(n_tried > 1000);

    /* A file that shrinks while it is open. */
    struct Safetensors *st = open_good(path);
    assert_int_equal(truncate(path, (off_t)n_bytes - 1), 0);
    bool all_read = true;
    for (int64_t i = 0; i < 20; i++) all_read = safetensors_read_f32(st, i, data, &err) && all_read;
    assert_false(all_read);
    assert_one_sentence(&err, path, "ends at byte");
    safetensors_close(st);
    free(bytes);
    free(path);
    free(cut);
}

static void test_what_is_no_file(void **state) {
    char *pipe_path = scratch_path(*state, "pipe"), *missing = scratch_path(*state, "missing");
    char *folder = scratch_path(*state, "model.safetensors");
    assert_refused(missing, "No such file");
    assert_refused(*state, "holds neither");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_refused(pipe_path, "not a regular file");
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_refused(*state, "not a regular file");
    free(pipe_path);
    free(missing);
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_hostile_headers),
        WITH_FOLDER(test_deep_nesting),
        WITH_FOLDER(test_header_lengths),
        WITH_FOLDER(test_truncation),
        WITH_FOLDER(test_what_is_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
