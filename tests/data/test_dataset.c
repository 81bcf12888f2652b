/* Datasets: what the writer takes the reader gives back, in every element type; files that disagree
 * and samples that cannot be are refused by name; a full disk leaves nothing half-written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "check.h"
#include "data/h5_element.h"
#include "data/h5_file.h"
#include "dataset_fixture.h"
#include "scratch.h"

enum { N = 7 };
static char *path, *other;

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
            struct Dataset *dataset = fixture_open(path, &err);
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
            for (int64_t i = N - 1; i >= 0; i--) fixture_check_sample(dataset, i, i, half_step);
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
    struct Dataset *dataset = fixture_open(path, &err);
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
    struct Dataset *dataset = fixture_open(path, &err);
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
    for (int64_t i = 0; i < 11; i++) fixture_check_sample(dataset, i, tags[i], 0);
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
        assert_int_equal(scratch_count(scratch_folder(), ".partial"), 0);
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
    assert_int_equal(scratch_count(scratch_folder(), ".partial"), 0);
}

/* In a process of its own, which must get through its normal end, too: fails to write a dataset,
 * then, with room again, writes one. */
static _Noreturn void run_out_of_disk(size_t limit) {
    struct Error err = {0};
    struct DatasetSpec spec = fixture_spec();
    scratch_limit_files(limit);
    bool written = fixture_write(path, &spec, 0, N, &err);
    scratch_lift_limit();
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
        assert_int_equal(scratch_count(scratch_folder(), ".partial"), 0);
        check(fixture_reads(path, &err)); /* the one from before */
        check(fixture_reads(other, &err));
    }
}

static int set_up(void **state) {
    return fixture_set_up(state, &path, &other);
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
    };
    return cmocka_run_group_tests(tests, set_up, scratch_group_tear_down);
}
