/* Datasets: what the writer takes the reader gives back, in every element type; files that
 * disagree, lie or are damaged are refused by name; damage names the sample. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/cmd_data_check.h"
#include "data/dataset.h"
#include "data/h5_array.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"
#include "dataset_fixture.h"
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

enum { N = 7 };
static char *folder, *path, *other;

static struct Dataset *open_one(char *name, struct Error *err) {
    return dataset_open(&name, 1, err);
}

/* Opens, reads everything, closes. */
static bool reads_whole(char *name, struct Error *err) {
    struct Dataset *dataset = open_one(name, err);
    if (!dataset) return false;
    const struct DatasetInfo *info = dataset_info(dataset);
    unsigned long text_elems = (unsigned long)(info->max_text_rows * info->text_dim) + 1;
    float *video = xmalloc((unsigned long)dataset_video_elems(dataset) * sizeof *video);
    float *text = xmalloc(text_elems * sizeof *text);
    bool good = dataset_read_negative(dataset, info->max_text_rows, text, err);
    for (int64_t i = 0; i < info->n_samples && good; i++) {
        char *prompt = NULL;
        good = dataset_read_sample(dataset, i, info->max_text_rows, video, text, err) &&
               dataset_read_prompt(dataset, i, &prompt, err);
        free(prompt);
    }
    free(video);
    free(text);
    dataset_close(dataset);
    return good;
}

static void check_sample(struct Dataset *dataset, int64_t sample, int64_t tag, float tolerance) {
    struct Error err;
    float video[FIXTURE_VIDEO], text[FIXTURE_TEXT + FIXTURE_TEXT_DIM];
    float want_video[FIXTURE_VIDEO], want_text[FIXTURE_TEXT];
    char want_prompt[32], *prompt;
    fixture_video(want_video, tag);
    fixture_text(want_text, tag);
    fixture_prompt(want_prompt, tag);
    for (int i = 0; i < FIXTURE_TEXT + FIXTURE_TEXT_DIM; i++) text[i] = NAN;
    check(dataset_read_sample(dataset, sample, FIXTURE_MAX_ROWS, video, text, &err));
    for (int i = 0; i < FIXTURE_VIDEO; i++)
        assert_true(fabsf(video[i] - want_video[i]) <= tolerance);
    assert_memory_equal(text, want_text, sizeof want_text);
    assert_true(isnan(text[FIXTURE_TEXT])); /* no further than text_len rows */
    check(dataset_read_prompt(dataset, sample, &prompt, &err));
    assert_string_equal(prompt, want_prompt);
    free(prompt);
}

/* ---- what is written comes back ---- */

static void test_round_trip_of_all_types(void **state) {
    (void)state;
    static const int videos[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, H5_U8};
    static const int texts[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    struct Error err;
    for (int v = 0; v < 4; v++)
        for (int t = 0; t < 3; t++) {
            struct DatasetSpec spec = fixture_spec();
            spec.video_element = videos[v];
            spec.text_element = texts[t];
            check(fixture_write(path, &spec, 0, N, &err));
            struct Dataset *dataset = open_one(path, &err);
            assert_non_null(dataset);
            const struct DatasetInfo *info = dataset_info(dataset);
            assert_int_equal(info->n_samples, N);
            assert_int_equal(info->channels, FIXTURE_CHANNELS);
            assert_int_equal(info->frames, FIXTURE_FRAMES);
            assert_int_equal(info->height, FIXTURE_HEIGHT);
            assert_int_equal(info->width, FIXTURE_WIDTH);
            assert_int_equal(info->video_element, videos[v]);
            assert_int_equal(info->text_element, texts[t]);
            assert_int_equal(info->text_dim, FIXTURE_TEXT_DIM);
            assert_int_equal(info->max_text_rows, FIXTURE_MAX_ROWS);
            assert_true(info->has_checksums && info->fps == 16);
            assert_string_equal(info->text_encoder, "fixture");
            assert_string_equal(info->video_encoder, "");
            assert_string_equal(info->negative_prompt, "nothing");
            float half_step = videos[v] == H5_U8 ? 0.5001f / 127.5f : 0.0f;
            for (int64_t i = N - 1; i >= 0; i--) check_sample(dataset, i, i, half_step);
            dataset_close(dataset);
        }
}

static void test_negative_and_prompt_search(void **state) {
    (void)state;
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    float text[3 * FIXTURE_TEXT_DIM];
    int64_t sample;
    check(fixture_write(path, &spec, 0, N, &err));
    struct Dataset *dataset = open_one(path, &err);
    assert_non_null(dataset);
    check(dataset_read_negative(dataset, 3, text, &err));
    assert_memory_equal(text, spec.negative_rows, 2 * FIXTURE_TEXT_DIM * sizeof *text);
    for (int i = 2 * FIXTURE_TEXT_DIM; i < 3 * FIXTURE_TEXT_DIM; i++) assert_true(text[i] == 0);
    check_error(dataset_read_negative(dataset, 1, text, &err), "2 text rows, more than text_len 1");
    check_error(dataset_read_text(dataset, 3, 2, text, &err), "3 text rows, more than text_len 2");
    assert_non_null(strstr(err.text, "sample 3"));
    check(dataset_find_prompt(dataset, "sample 5", &sample, &err));
    assert_int_equal(sample, 5);
    check_error(dataset_find_prompt(dataset, "sample", &sample, &err), "no sample");
    dataset_close(dataset);
}

/* f32 latents with per-channel statistics, from the file or Wan's. */
static void check_normalised(int64_t channels, const double *mean, const double *std, bool in_file,
                             bool normalised) {
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    enum { ELEMS = 2 * 2, MOST = 16 * ELEMS };
    float video[MOST], text[FIXTURE_TEXT_DIM], out[MOST];
    spec.kind = DATASET_LATENTS;
    spec.channels = channels;
    spec.frames = 1;
    spec.height = spec.width = 2;
    spec.normalised = normalised;
    if (in_file) {
        spec.latent_mean = mean;
        spec.latent_std = std;
    }
    for (int i = 0; i < MOST; i++) video[i] = (float)i * 0.37f - 3.0f;
    struct DatasetWriter *writer = dataset_writer_open(path, &spec, &err);
    assert_non_null(writer);
    check(dataset_writer_append(writer, "x", video, text, 0, &err));
    check(dataset_writer_finish(writer, &err));
    struct Dataset *dataset = open_one(path, &err);
    if (!dataset) fail_msg("%s", err.text);
    assert_int_equal(dataset_info(dataset)->normalised, normalised);
    check(dataset_read_sample(dataset, 0, 1, out, text, &err));
    for (int64_t i = 0; i < channels * ELEMS; i++) {
        double want = normalised ? video[i] : (video[i] - mean[i / ELEMS]) / std[i / ELEMS];
        assert_true(fabs(out[i] - want) <= 1e-6 * (1 + fabs(want)));
    }
    dataset_close(dataset);
}

static void test_latents_are_normalised_once(void **state) {
    (void)state;
    static const double mean[2] = {0.5, -2}, std[2] = {2, 0.25};
    /* First and last channel of Wan2.1's table; the others are read from the same one. */
    static const double wan_mean[16] = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,
                                        -0.1517, 1.5508,  0.4134,  -0.0715, 0.5517,  -0.3632,
                                        -0.1922, -0.9497, 0.2503,  -0.2921};
    static const double wan_std[16] = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708,
                                       2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579,
                                       1.6382, 1.1253, 2.8251, 1.9160};
    check_normalised(2, mean, std, true, false);
    check_normalised(2, mean, std, true, true);
    check_normalised(2, mean, std, false, true);
    check_normalised(16, wan_mean, wan_std, false, false);
    check_normalised(16, wan_mean, wan_std, false, true);
}

/* ---- several files ---- */

static void test_files_are_one_dataset(void **state) {
    (void)state;
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    char *paths[3] = {path, other, path};
    check(fixture_write(path, &spec, 0, 3, &err));
    check(fixture_write(other, &spec, 10, 5, &err));
    struct Dataset *dataset = dataset_open(paths, 3, &err);
    assert_non_null(dataset);
    static const int64_t tags[] = {0, 1, 2, 10, 11, 12, 13, 14, 0, 1, 2};
    assert_int_equal(dataset_info(dataset)->n_samples, 11);
    for (int64_t i = 0; i < 11; i++) check_sample(dataset, i, tags[i], 0);
    dataset_close(dataset);
}

static void test_files_that_disagree(void **state) {
    (void)state;
    struct Error err;
    static const float rows[2 * FIXTURE_TEXT_DIM] = {0};
    struct DatasetSpec spec = fixture_spec(), specs[7];
    static const char *const reasons[7] = {"height",          "text_dim",     "videos' type",
                                           "text's type",     "text_encoder", "negative prompts",
                                           "negative prompts"};
    for (int i = 0; i < 7; i++) specs[i] = spec;
    specs[0].height = 5;
    specs[1].text_dim = 5;
    specs[2].video_element = H5_U8;
    specs[3].text_element = DTYPE_BF16;
    specs[4].text_encoder = "another";
    specs[5].negative_prompt = "something";
    specs[6].negative_rows = rows;
    check(fixture_write(path, &spec, 0, 2, &err));
    for (int i = 0; i < 7; i++) {
        float video[FIXTURE_VIDEO * 2] = {0};
        struct DatasetWriter *writer = dataset_writer_open(other, &specs[i], &err);
        assert_non_null(writer);
        check(dataset_writer_append(writer, "x", video, NULL, 0, &err));
        check(dataset_writer_finish(writer, &err));
        char *paths[2] = {path, other};
        check_error(dataset_open(paths, 2, &err), reasons[i]);
        assert_non_null(strstr(err.text, path));
        assert_non_null(strstr(err.text, other));
    }
}

/* ---- what the writer refuses ---- */

static void test_writer_refuses(void **state) {
    (void)state;
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    float video[FIXTURE_VIDEO], text[FIXTURE_TEXT];
    fixture_video(video, 1);
    fixture_text(text, 4);
    spec.video_element = spec.text_element = DTYPE_F16;
    static const struct {
        const char *prompt, *reason;
        int64_t n_rows;
        float video_value, text_value;
    } cases[] = {
        {"x", "value 5 is nan", 1, NAN, 0},     {"x", "value 5 is inf", 1, INFINITY, 0},
        {"x", "value 5 is 70000", 1, 70000, 0}, {"x", "value 3 is -inf", 1, 0, -INFINITY},
        {"\x80", "not valid UTF-8", 1, 0, 0},   {"x", "at most 4096 rows", 4097, 0, 0},
        {"x", "at most 4096 rows", -1, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct DatasetWriter *writer = dataset_writer_open(path, &spec, &err);
        assert_non_null(writer);
        check(dataset_writer_append(writer, "good", video, text, 1, &err));
        float old_video = video[5], old_text = text[3];
        video[5] = cases[i].video_value;
        text[3] = cases[i].text_value;
        check_error(
            dataset_writer_append(writer, cases[i].prompt, video, text, cases[i].n_rows, &err),
            cases[i].reason);
        assert_non_null(strstr(err.text, "sample 1"));
        video[5] = old_video;
        text[3] = old_text;
        dataset_writer_discard(writer);
        assert_int_equal(scratch_count(folder, ".partial"), 0);
    }
    spec.channels = 4;
    check_error(dataset_writer_open(path, &spec, &err), "3 channels");
    spec.channels = 3;
    spec.width = INT64_C(1) << 40;
    check_error(dataset_writer_open(path, &spec, &err), "cannot be");
    spec = fixture_spec();
    spec.video_element = DTYPE_I64;
    check_error(dataset_writer_open(path, &spec, &err), "stored as i64");
    spec = fixture_spec();
    struct DatasetWriter *writer = dataset_writer_open(path, &spec, &err);
    assert_non_null(writer);
    check_error(dataset_writer_finish(writer, &err), "no samples");
    assert_int_equal(scratch_count(folder, ".partial"), 0);
}

/* A limit on the length of files stands in for a full disk.  In a process of its own, which must
 * get through its normal end, too: fails to write a dataset, then, with room again, writes one. */
static _Noreturn void run_out_of_disk(size_t limit) {
    struct Error err = {0};
    struct DatasetSpec spec = fixture_spec();
    struct rlimit lengths;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &lengths);
    lengths.rlim_cur = limit;
    setrlimit(RLIMIT_FSIZE, &lengths);
    bool written = fixture_write(path, &spec, 0, N, &err);
    lengths.rlim_cur = lengths.rlim_max;
    setrlimit(RLIMIT_FSIZE, &lengths);
    bool named = strstr(err.text, "first.h5.partial': File too large") != NULL;
    exit(!written && named && fixture_write(other, &spec, 0, N, &err) ? 42 : 1);
}

static void test_full_disk(void **state) {
    (void)state;
    struct Error err;
    struct DatasetSpec spec = fixture_spec();
    size_t n_whole;
    check(fixture_write(path, &spec, 0, N, &err));
    free(scratch_read(path, &n_whole));
    for (size_t limit = 0; limit < n_whole; limit += n_whole / 9) {
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) run_out_of_disk(limit);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 42);
        assert_int_equal(scratch_count(folder, ".partial"), 0);
        check(reads_whole(path, &err)); /* the one from before */
        check(reads_whole(other, &err));
    }
}

/* ---- damage ---- */

/* The plain file of the tests below; then `change` is let loose on it. */
static hid_t open_to_change(struct DatasetSpec *spec) {
    struct Error err;
    check(fixture_write(path, spec, 0, N, &err));
    check(reads_whole(path, &err));
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
            if (reads_whole(other, &err)) {
                struct Dataset *dataset = open_one(other, &err);
                check_sample(dataset, sample, sample, 0);
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
    check_error(reads_whole(other, &err), "sample ");
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
        check_error(reads_whole(other, &err), other);
    }
    scratch_write(other, bytes, n_file - 1);
    check_error(reads_whole(other, &err), "damaged or cut short");
    assert_true(n_cuts > 90);
    free(bytes);
}

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
        check_error(reads_whole(path, &err), cases[i].reason);
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
    check_error(reads_whole(path, &err), "latent_mean and latent_std");
    spec.latent_mean = mean;
    spec.latent_std = zero_std;
    check(fixture_write(path, &spec, 0, 1, &err));
    check_error(reads_whole(path, &err), "latent_std[1] is 0");
    spec.latent_std = nan_std;
    check(fixture_write(path, &spec, 0, 1, &err));
    check_error(reads_whole(path, &err), "latent_std to be 3 finite numbers");
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
    char *missing[] = {"info", folder, NULL}, *none[] = {"verify", NULL};
    assert_int_equal(cmd_data_verify(3, both), EXIT_USER);
    assert_int_equal(cmd_data_verify(2, good), EXIT_OK);
    assert_int_equal(cmd_data_verify(1, none), EXIT_USER);
    assert_int_equal(cmd_data_info(3, both), EXIT_OK); /* which reads no videos */
    assert_int_equal(cmd_data_info(2, missing), EXIT_USER);
}

static int set_up(void **state) {
    (void)state;
    folder = scratch_make();
    path = scratch_path(folder, "first.h5");
    other = scratch_path(folder, "second.h5");
    h5_quiet();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free(path);
    free(other);
    scratch_remove(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_of_all_types),
        cmocka_unit_test(test_negative_and_prompt_search),
        cmocka_unit_test(test_latents_are_normalised_once),
        cmocka_unit_test(test_files_are_one_dataset),
        cmocka_unit_test(test_files_that_disagree),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_flipped_bytes_name_the_sample),
        cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_wrong_contents),
        cmocka_unit_test(test_latents_without_statistics),
        cmocka_unit_test(test_verify_and_info),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
