/* Safetensors: what is written comes back, types convert, shards join; and no file, however it
 * lies, crashes the reader: it is refused with one sentence that names it. */
#define _GNU_SOURCE /* memmem */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/safetensors.h"
#include "data/safetensors_writer.h"
#include "scratch.h"

/* Writes a file from its two parts. */
static void write_parts(const char *path, const char *header, size_t n_header, const void *data,
                        size_t n_data) {
    unsigned char *bytes = xmalloc(8 + n_header + n_data);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)n_header >> 8 * i);
    memcpy(bytes + 8, header, n_header);
    memcpy(bytes + 8 + n_header, data, n_data);
    scratch_write(path, bytes, 8 + n_header + n_data);
    free(bytes);
}

static void assert_one_sentence(const struct Error *err, const char *path, const char *what) {
    if (!strstr(err->text, path)) fail_msg("'%s' does not name '%s'", err->text, path);
    if (!strstr(err->text, what)) fail_msg("'%s' does not say '%s'", err->text, what);
    for (const char *c = err->text; *c; c++) assert_false((unsigned char)*c < 0x20);
    assert_int_equal(err->exit_code, EXIT_USER);
}

static void assert_refused(const char *path, const char *what) {
    struct Safetensors *st;
    struct Error err;
    if (safetensors_open(path, &st, &err)) fail_msg("%s was accepted (%s)", path, what);
    assert_one_sentence(&err, path, what);
}

static struct Safetensors *open_good(const char *path) {
    struct Safetensors *st;
    struct Error err;
    if (!safetensors_open(path, &st, &err)) fail_msg("%s", err.text);
    return st;
}

/* ---- good files ---- */

static void test_a_file_written_by_hand(void **state) {
    static const char header[] =
        "{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[0,4]},"
        "\"__metadata__\":{\"format\":\"pt\"},"
        "\"a.scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]},"
        "\"a.empty\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[4,4]},"
        "\"z\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],\"data_offsets\":[8,11]},"
        "\"y\":{\"dtype\":\"FUTURE\",\"shape\":[3],\"data_offsets\":[11,12]}}";
    char *path = scratch_path(*state, "hand.safetensors");
    /* 1 and -2.5 in bfloat16; 0.25 in float32; four bytes of unknown types */
    const unsigned char data[12] = {0x80, 0x3f, 0x20, 0xc0, 0, 0, 0x80, 0x3e, 1, 2, 3, 4};
    write_parts(path, header, sizeof header - 1, data, sizeof data);

    struct Safetensors *st = open_good(path);
    struct Error err;
    float values[2];
    double wide[2];
    int64_t whole[2];
    assert_int_equal(safetensors_count(st), 5);
    assert_string_equal(safetensors_info(st, 0)->name, "a.empty");
    assert_string_equal(safetensors_info(st, 4)->name, "z");
    assert_string_equal(safetensors_metadata(st, "format"), "pt");
    assert_null(safetensors_metadata(st, "formats"));
    assert_int_equal(safetensors_find(st, "a"), -1);

    int64_t b = safetensors_find(st, "b"), scalar = safetensors_find(st, "a.scalar");
    assert_int_equal(safetensors_info(st, b)->n_dims, 2);
    assert_int_equal(safetensors_info(st, b)->shape[0], 2);
    assert_string_equal(safetensors_info(st, b)->dtype_text, "BF16");
    assert_true(safetensors_read_f32(st, b, values, &err));
    assert_true(values[0] == 1.0f && values[1] == -2.5f);
    assert_true(safetensors_read_f64(st, b, wide, &err));
    assert_true(wide[0] == 1.0 && wide[1] == -2.5);
    assert_false(safetensors_read_i64(st, b, whole, &err));
    assert_one_sentence(&err, path, "'b'");
    assert_int_equal(safetensors_info(st, scalar)->n_elems, 1);
    assert_true(safetensors_read_f32(st, scalar, values, &err));
    assert_true(values[0] == 0.25f);
    assert_int_equal(safetensors_info(st, 0)->n_elems, 0);
    assert_true(safetensors_read_f32(st, 0, values, &err));
    for (int64_t i = 3; i < 5; i++) {
        assert_false(safetensors_info(st, i)->readable);
        assert_false(safetensors_read_f32(st, i, values, &err));
        assert_one_sentence(&err, path, "cannot be read");
    }
    safetensors_close(st);
    free(path);
}

static void test_integer_types(void **state) {
    static const char header[] =
        "{\"long\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
        "\"int\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[8,16]},"
        "\"byte\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[16,18]},"
        "\"flag\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[18,19]}}";
    char *path = scratch_path(*state, "integers.safetensors");
    unsigned char data[19];
    for (unsigned char i = 0; i < sizeof data; i++) data[i] = i;
    write_parts(path, header, sizeof header - 1, data, sizeof data);
    struct Safetensors *st = open_good(path);
    struct Error err;
    int64_t whole[2];
    double wide[2];
    float narrow[2];
    assert_true(safetensors_read_i64(st, safetensors_find(st, "long"), whole, &err));
    assert_true(whole[0] == 0x0706050403020100);
    assert_true(safetensors_read_i64(st, safetensors_find(st, "int"), whole, &err));
    assert_true(whole[0] == 0x0b0a0908 && whole[1] == 0x0f0e0d0c);
    assert_true(safetensors_read_f64(st, safetensors_find(st, "byte"), wide, &err));
    assert_true(wide[0] == 16 && wide[1] == 17);
    assert_true(safetensors_read_f32(st, safetensors_find(st, "flag"), narrow, &err));
    assert_true(narrow[0] == 18);
    assert_false(safetensors_info(st, safetensors_find(st, "int"))->has_dtype);
    safetensors_close(st);
    free(path);
}

static const struct {
    const char *name;
    enum Dtype dtype;
    int n_dims;
    int64_t shape[3];
} written[] = {
    {"w.half", DTYPE_F16, 1, {5}},
    {"w.float", DTYPE_F32, 3, {2, 1, 3}},
    {"w.brain", DTYPE_BF16, 2, {3, 3}},
    {"a.double", DTYPE_F64, 1, {4}},
    {"count", DTYPE_I64, 0, {0}},
    {"big", DTYPE_F32, 2, {300, 1000}}, /* more than one chunk */
};
enum { N_WRITTEN = sizeof written / sizeof *written, MAX_ELEMS = 300000 };

static void declare_all(struct SafetensorsWriter *w) {
    for (int i = 0; i < N_WRITTEN; i++)
        safetensors_writer_declare(w, written[i].name, written[i].dtype, written[i].n_dims,
                                   written[i].shape);
}

/* Element i of tensor t: exact in every type. */
static float value_of(int t, int64_t i) {
    return (float)(i % 100) - 0.5f * (float)(t % 2) - 3;
}

static bool write_all(struct SafetensorsWriter *w, struct Error *err) {
    const double doubles[4] = {0.1, -1e300, 3, NAN};
    const int64_t count = INT64_C(-9007199254740993);
    float *data = xmalloc(MAX_ELEMS * sizeof *data);
    bool good = safetensors_write_f64(w, "a.double", doubles, err) &&
                safetensors_write_i64(w, "count", &count, err);
    for (int t = 0; good && t < N_WRITTEN; t++) {
        if (written[t].dtype == DTYPE_F64 || written[t].dtype == DTYPE_I64) continue;
        for (int64_t i = 0; i < MAX_ELEMS; i++) data[i] = value_of(t, i);
        good = safetensors_write_f32(w, written[t].name, data, err);
    }
    free(data);
    return good;
}

static void check_all(const char *path) {
    struct Safetensors *st = open_good(path);
    struct Error err;
    float *data = xmalloc(MAX_ELEMS * sizeof *data);
    double doubles[4];
    int64_t count;
    assert_int_equal(safetensors_count(st), N_WRITTEN);
    for (int t = 0; t < N_WRITTEN; t++) {
        int64_t i = safetensors_find(st, written[t].name);
        const struct SafetensorsInfo *info = safetensors_info(st, i);
        assert_int_equal(info->dtype, written[t].dtype);
        assert_int_equal(info->n_dims, written[t].n_dims);
        assert_memory_equal(info->shape, written[t].shape,
                            (size_t)info->n_dims * sizeof *info->shape);
        if (written[t].dtype == DTYPE_F64 || written[t].dtype == DTYPE_I64) continue;
        assert_true(safetensors_read_f32(st, i, data, &err));
        for (int64_t j = 0; j < info->n_elems; j++) assert_true(data[j] == value_of(t, j));
    }
    assert_true(safetensors_read_f64(st, safetensors_find(st, "a.double"), doubles, &err));
    assert_true(doubles[0] == 0.1 && doubles[1] == -1e300 && doubles[2] == 3 && isnan(doubles[3]));
    assert_true(safetensors_read_i64(st, safetensors_find(st, "count"), &count, &err));
    assert_true(count == INT64_C(-9007199254740993));
    assert_string_equal(safetensors_metadata(st, "who"), "t\303\253st");
    safetensors_close(st);
    free(data);
}

static void test_round_trip(void **state) {
    char *path = scratch_path(*state, "all.safetensors");
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    struct Error err;
    safetensors_writer_metadata(w, "who", "t\303\253st");
    declare_all(w);
    assert_true(write_all(w, &err));
    assert_false(scratch_exists(path)); /* not before it is complete */
    assert_true(safetensors_writer_commit(w, &err));
    check_all(path);
    assert_int_equal(scratch_count(*state, ".partial"), 0);

    size_t n_bytes;
    unsigned char *bytes = scratch_read(path, &n_bytes);
    assert_int_equal(bytes[0] % 8, 0); /* the data is aligned */
    free(bytes);
    free(path);
}

static void test_abandoned_and_failed_writes_leave_nothing(void **state) {
    char *path = scratch_path(*state, "none.safetensors"),
         *nowhere = scratch_path(*state, "no/where");
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    struct Error err;
    declare_all(w);
    assert_true(write_all(w, &err));
    safetensors_writer_abandon(w);
    assert_int_equal(scratch_count(*state, "safetensors"), 0);
    assert_int_equal(scratch_count(*state, ".partial"), 0);

    w = safetensors_writer_new(nowhere);
    assert_false(safetensors_writer_commit(w, &err));
    assert_one_sentence(&err, nowhere, "cannot be created");
    free(nowhere);
    free(path);
}

/* ---- shards ---- */

static void write_shards(const char *folder, int64_t max_shard_bytes) {
    struct SafetensorsWriter *w =
        safetensors_writer_new_sharded(folder, SAFETENSORS_WAN_STEM, max_shard_bytes);
    struct Error err;
    safetensors_writer_metadata(w, "who", "t\303\253st");
    declare_all(w);
    assert_true(write_all(w, &err));
    assert_true(safetensors_writer_commit(w, &err));
}

static void test_shards(void **state) {
    char *index = scratch_path(*state, SAFETENSORS_WAN_STEM ".safetensors.index.json");
    write_shards(*state, 40);
    assert_int_equal(scratch_count(*state, "-of-00004.safetensors"), 4);
    check_all(*state);
    check_all(index);
    free(index);
}

static void test_one_shard_needs_no_index(void **state) {
    write_shards(*state, 10000000);
    assert_int_equal(scratch_count(*state, ".json"), 0);
    assert_int_equal(scratch_count(*state, SAFETENSORS_WAN_STEM ".safetensors"), 1);
    check_all(*state);
}

static void test_broken_shards(void **state) {
    static const char stem[] = SAFETENSORS_WAN_STEM;
    char *index = scratch_path(*state, SAFETENSORS_WAN_STEM ".safetensors.index.json");
    char *shard = scratch_path(*state, SAFETENSORS_WAN_STEM "-00002-of-00004.safetensors");
    char *other = scratch_path(*state, SAFETENSORS_WAN_STEM "-00001-of-00004.safetensors");
    char *away = scratch_path(*state, "away");
    write_shards(*state, 40);
    size_t n_bytes;
    char *map = (char *)scratch_read(index, &n_bytes);
    assert_int_equal(rename(shard, away), 0);
    assert_refused(*state, "00002-of-00004");

    scratch_write(shard, "", 0);
    assert_refused(*state, "too short");
    unlink(shard);
    assert_int_equal(link(other, shard), 0); /* the wrong file under the right name */
    assert_refused(*state, "is both in");
    unlink(shard);
    assert_int_equal(rename(away, shard), 0);
    check_all(*state);

    char *name = memmem(map, n_bytes, "\"count\"", 7);
    assert_non_null(name);
    memcpy(name, "\"cOunt\"", 7); /* a tensor that no file has */
    scratch_write(index, map, n_bytes);
    assert_refused(*state, "'cOunt'");
    memcpy(name, "\"big\"  ", 7); /* a name twice */
    scratch_write(index, map, n_bytes);
    assert_refused(*state, "duplicate");
    free(map);

    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"weight_map\":[]}",
        "{\"weight_map\":{\"a\":3}}",
        "{\"weight_map\":{\"a\":\"../x.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
        "{\"weight_map\":{\"a\":\"\"}}",
        "{\"weight_map\":{\"a\":\"missing.safetensors\"}}",
        "{\"weight_map\":{\"\\n\":\"x.safetensors\"}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scratch_write(index, bad[i], strlen(bad[i]));
        assert_refused(*state, stem);
    }
    scratch_write(index, "{\"weight_map\":{}}", 17); /* no tensors: strange, but consistent */
    safetensors_close(open_good(index));
    free(index);
    free(shard);
    free(other);
    free(away);
}

/* ---- hostile files ---- */

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
        WITH_FOLDER(test_a_file_written_by_hand),
        WITH_FOLDER(test_integer_types),
        WITH_FOLDER(test_round_trip),
        WITH_FOLDER(test_abandoned_and_failed_writes_leave_nothing),
        WITH_FOLDER(test_shards),
        WITH_FOLDER(test_one_shard_needs_no_index),
        WITH_FOLDER(test_broken_shards),
        WITH_FOLDER(test_hostile_headers),
        WITH_FOLDER(test_deep_nesting),
        WITH_FOLDER(test_header_lengths),
        WITH_FOLDER(test_truncation),
        WITH_FOLDER(test_what_is_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
