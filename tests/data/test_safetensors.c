/* Safetensors: what is written comes back, types convert, shards join, and broken sets of shards
 * are refused (test_safetensors_damage.c has broken files). */
#define _GNU_SOURCE /* memmem */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/safetensors_writer.h"
#include "safetensors_fixture.h"
#include "scratch.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_a_file_written_by_hand),
        WITH_FOLDER(test_integer_types),
        WITH_FOLDER(test_round_trip),
        WITH_FOLDER(test_abandoned_and_failed_writes_leave_nothing),
        WITH_FOLDER(test_shards),
        WITH_FOLDER(test_one_shard_needs_no_index),
        WITH_FOLDER(test_broken_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
