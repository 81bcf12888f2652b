/* Datasets that are damaged, lie or lead elsewhere are refused with one sentence, which names the
 * sample where there is one; the commands that check a dataset tell the same. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "data/cmd_data_check.h"
#include "data/h5_array.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"
#include "dataset_fixture.h"
#include "scratch.h"

enum { N = 7 };
static char *path, *other;

/* ---- damaged bytes ---- */

/* The plain file of the tests below; then `change` is let loose on it. */
static hid_t open_to_change(struct DatasetSpec *spec) {
    struct Error err;
    check(fixture_write(path, spec, 0, N, &err));
    check(fixture_reads(path, &err));
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

/* Where in the file a chunk of an array lies. */
static void find_chunk(const char *name, int64_t row, haddr_t *address, hsize_t *n_bytes) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    hsize_t offset[5] = {(hsize_t)row};
    unsigned mask;
    assert_true(H5Dget_chunk_info_by_coord(dataset, offset, &mask, address, n_bytes) >= 0);
    H5Dclose(dataset);
    H5Fclose(file);
}

/* Bytes all over the stored chunks: a flip is found and blamed on the right sample, or is one of
 * the few bits of Zstandard's frame header that change nothing. */
static void test_flipped_bytes_name_the_sample(void **state) {
    (void)state;
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    H5Fclose(open_to_change(&spec));
    size_t n_file;
    unsigned char *bytes = scratch_read(path, &n_file);
    int n_found = 0, n_harmless = 0;
    for (int64_t sample = 0; sample < N; sample++) {
        haddr_t address;
        hsize_t n_bytes;
        char blamed[32];
        snprintf(blamed, sizeof blamed, "sample %lld", (long long)sample);
        find_chunk("pixels", sample, &address, &n_bytes);
        assert_true(n_bytes > 8 && address + n_bytes <= n_file);
        for (hsize_t i = 0; i < n_bytes; i += 13) {
            unsigned char *byte = &bytes[address + i], bit = (unsigned char)(1u << (i % 8));
            *byte ^= bit;
            scratch_write(other, bytes, n_file);
            *byte ^= bit;
            if (fixture_reads(other, &err)) {
                struct Dataset *dataset = fixture_open(other, &err);
                fixture_check_sample(dataset, sample, sample, 0);
                dataset_close(dataset);
                n_harmless++;
            } else {
                assert_non_null(strstr(err.text, blamed));
                n_found++;
            }
        }
    }
    assert_true(n_found > 50 && n_harmless <= N);
    haddr_t address;
    hsize_t n_bytes;
    find_chunk("text/rows", 0, &address, &n_bytes);
    bytes[address + n_bytes / 2] ^= 4;
    scratch_write(other, bytes, n_file);
    check_error(fixture_reads(other, &err), "sample ");
    free(bytes);
}

static void test_truncated_files(void **state) {
    (void)state;
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    H5Fclose(open_to_change(&spec));
    size_t n_file;
    unsigned char *bytes = scratch_read(path, &n_file);
    int n_cuts = 0;
    for (size_t n = 0; n < n_file; n += n_file / 97 + 1, n_cuts++) {
        scratch_write(other, bytes, n);
        check_error(fixture_reads(other, &err), other);
    }
    scratch_write(other, bytes, n_file - 1);
    check_error(fixture_reads(other, &err), "damaged or cut short");
    assert_true(n_cuts > 90);
    free(bytes);
}

/* ---- wrong contents ---- */

static void overwrite(hid_t file, const char *name, int64_t row, const void *values) {
    struct Error err;
    struct H5Array array;
    check(h5_array_open(file, name, &array, &err));
    check(h5_array_write(&array, row, 1, values, &err));
    h5_array_close(&array);
}

static void no_format(hid_t file) {
    H5Adelete(file, "format");
}
static void other_format(hid_t file) {
    struct Error err;
    check(h5_attr_write_text(file, "format", "other", &err));
}
static void version_2(hid_t file) {
    struct Error err;
    check(h5_attr_write_i64(file, "format_version", 2, &err));
}
static void odd_kind(hid_t file) {
    struct Error err;
    check(h5_attr_write_text(file, "kind", "sounds", &err));
}
static void kind_without_array(hid_t file) {
    struct Error err;
    check(h5_attr_write_text(file, "kind", "latents", &err));
    check(h5_attr_write_i64(file, "normalised", 1, &err));
}
static void latents_without_normalised(hid_t file) {
    struct Error err;
    check(h5_attr_write_text(file, "kind", "latents", &err));
}
static void other_axes(hid_t file) {
    struct Error err;
    check(h5_attr_write_text(file, "axis_order", "NFCHW", &err));
}
static void bad_fps(hid_t file) {
    struct Error err;
    check(h5_attr_write_double(file, "fps", NAN, &err));
}
static void no_prompts(hid_t file) {
    H5Ldelete(file, "prompts", H5P_DEFAULT);
}
static void no_negative(hid_t file) {
    H5Ldelete(file, "negative", H5P_DEFAULT);
}
static void no_offsets(hid_t file) {
    H5Ldelete(file, "text/offsets", H5P_DEFAULT);
}
static void fewer_checksums(hid_t file) {
    H5Ldelete(file, "checksums", H5P_DEFAULT);
    H5Lcreate_hard(file, "text/offsets", file, "checksums", H5P_DEFAULT, H5P_DEFAULT);
}
static void linked_outside(hid_t file) {
    H5Ldelete(file, "pixels", H5P_DEFAULT);
    H5Lcreate_external(other, "/pixels", file, "pixels", H5P_DEFAULT, H5P_DEFAULT);
}
static void descending_offsets(hid_t file) {
    overwrite(file, "text/offsets", 3, &(int64_t){0});
}
static void offsets_beyond(hid_t file) {
    overwrite(file, "text/offsets", 4, &(int64_t){INT64_MAX});
}
static void negative_offset(hid_t file) {
    overwrite(file, "text/offsets", 0, &(int64_t){-1});
}
static void late_start(hid_t file) {
    overwrite(file, "text/offsets", 0, &(int64_t){1});
    overwrite(file, "text/offsets", 1, &(int64_t){1});
}
static void early_end(hid_t file) {
    overwrite(file, "text/offsets", N, &(int64_t){N});
}
static void wrong_checksum(hid_t file) {
    overwrite(file, "checksums", 3, (uint32_t[3]){1, 2, 3});
}
static void other_video(hid_t file) {
    float video[FIXTURE_VIDEO] = {0};
    overwrite(file, "pixels", 5, video);
}
static void other_text(hid_t file) {
    float row[FIXTURE_TEXT_DIM] = {0};
    overwrite(file, "text/rows", 1, row); /* rows 1 and 2 are sample 2's */
}
static void nan_video(hid_t file) {
    float video[FIXTURE_VIDEO] = {[7] = NAN};
    H5Ldelete(file, "checksums", H5P_DEFAULT);
    overwrite(file, "pixels", 5, video);
}
static void infinite_text(hid_t file) {
    float row[FIXTURE_TEXT_DIM] = {[2] = INFINITY};
    H5Ldelete(file, "checksums", H5P_DEFAULT);
    overwrite(file, "text/rows", 2, row);
}
static void other_negative(hid_t file) {
    float row[FIXTURE_TEXT_DIM] = {0};
    overwrite(file, "negative/rows", 0, row);
}
static void other_prompt(hid_t file) {
    overwrite(file, "prompts", 4, &(const char *){"another"});
}
static void bad_prompt(hid_t file) {
    overwrite(file, "prompts", 6, &(const char *){"\xED\xA0\x80"}); /* a surrogate */
}

static void test_wrong_contents(void **state) {
    (void)state;
    static const struct {
        void (*change)(hid_t file);
        const char *reason;
    } cases[] = {
        {no_format, "'format'"},
        {other_format, "format = 'tmd.dataset', got 'other'"},
        {version_2, "format_version 1, got 2"},
        {odd_kind, "got 'sounds'"},
        {kind_without_array, "has no 'latents'"},
        {latents_without_normalised, "'normalised'"},
        {other_axes, "NCFHW"},
        {bad_fps, "fps"},
        {no_prompts, "has no 'prompts'"},
        {no_negative, "has no 'negative'"},
        {no_offsets, "has no 'text/offsets'"},
        {fewer_checksums, "'checksums'"},
        {linked_outside, "never followed"},
        {descending_offsets, "sample 2: text offsets"},
        {offsets_beyond, "sample 3: text offsets"},
        {negative_offset, "sample 0: text offsets"},
        {late_start, "sample 0: text offsets"},
        {early_end, "sample 6: text offsets"},
        {wrong_checksum, "sample 3: the checksum of its video should be 00000001"},
        {other_video, "sample 5: the checksum of its video"},
        {other_text, "sample 2: the checksum of its text"},
        {nan_video, "sample 5: value 7 of its video is nan"},
        {infinite_text, "sample 2: text row 1, value 2 is inf"},
        {other_negative, "negative prompt: the checksum"},
        {other_prompt, "sample 4: the checksum of its prompt"},
        {bad_prompt, "sample 6: '/prompts'"},
    };
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hid_t file = open_to_change(&spec);
        cases[i].change(file);
        assert_true(H5Fclose(file) >= 0);
        check_error(fixture_reads(path, &err), cases[i].reason);
        assert_non_null(strstr(err.text, path));
        assert_int_equal(err.exit_code, EXIT_USER);
    }
}

/* Latents that are not normalised, whose statistics are missing or useless. */
static void test_latents_without_statistics(void **state) {
    (void)state;
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    static const double mean[3] = {0, 0, 0}, zero_std[3] = {1, 0, 1}, nan_std[3] = {1, NAN, 1};
    spec.kind = DATASET_LATENTS;
    check(fixture_write(path, &spec, 0, 1, &err));
    check_error(fixture_reads(path, &err), "latent_mean and latent_std");
    spec.latent_mean = mean;
    spec.latent_std = zero_std;
    check(fixture_write(path, &spec, 0, 1, &err));
    check_error(fixture_reads(path, &err), "latent_std[1] is 0");
    spec.latent_std = nan_std;
    check(fixture_write(path, &spec, 0, 1, &err));
    check_error(fixture_reads(path, &err), "latent_std to be 3 finite numbers");
}

/* ---- the commands ---- */

static void test_verify_and_info(void **state) {
    (void)state;
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    hid_t file = open_to_change(&spec);
    other_video(file);
    assert_true(H5Fclose(file) >= 0);
    check(fixture_write(other, &spec, 0, N, &err));
    char *both[] = {"verify", other, path, NULL}, *good[] = {"verify", other, NULL};
    char *missing[] = {"info", (char *)(uintptr_t)scratch_folder(), NULL},
         *none[] = {"verify", NULL};
    assert_int_equal(cmd_data_verify(3, both), EXIT_USER);
    assert_int_equal(cmd_data_verify(2, good), EXIT_OK);
    assert_int_equal(cmd_data_verify(1, none), EXIT_USER);
    assert_int_equal(cmd_data_info(3, both), EXIT_OK); /* which reads no videos */
    assert_int_equal(cmd_data_info(2, missing), EXIT_USER);
}

static int set_up(void **state) {
    return fixture_set_up(state, &path, &other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flipped_bytes_name_the_sample),
        cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_wrong_contents),
        cmocka_unit_test(test_latents_without_statistics),
        cmocka_unit_test(test_verify_and_info),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_group_tear_down);
}
