/* Video ingestion: the right frames at the right times, scaled, cropped and turned as a player
 * shows them; clips at their strides; captions; and nothing but local video files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "check.h"
#include "data/cmd_data_video.h"
#include "data/dataset.h"
#include "data/h5_element.h"
#include "data/toy_text.h"
#include "data/video_captions.h"
#include "data/video_clips.h"
#include "data/video_reader.h"
#include "scratch.h"
#include "video_fixture.h"

enum { WIDTH = 32, HEIGHT = 16, MAX_PIXELS = 64 * 64 };
static char *path;

/* The numbers of the frames that a reader gives, told by their red; returns how many. */
static int read_frames(double fps, int *frames, int most) {
    struct Error err;
    uint8_t rgb[3 * WIDTH * HEIGHT];
    struct VideoReader *reader = video_reader_open(path, WIDTH, HEIGHT, fps, &err);
    if (!reader) fail_msg("%s", err.text);
    int n = 0;
    for (bool end = false;; n++) {
        check(video_reader_next(reader, rgb, &end, &err));
        if (end) break;
        assert_in_range(n, 0, most - 1);
        assert_int_equal(rgb[0] % 7, 0);
        frames[n] = rgb[0] / 7;
    }
    video_reader_close(reader);
    return n;
}

static void check_frames(double fps, const int *expected, int n_expected) {
    int frames[64];
    int n = read_frames(fps, frames, 64);
    assert_int_equal(n, n_expected);
    for (int i = 0; i < n; i++) assert_int_equal(frames[i], expected[i]);
}

static void test_frames_at_their_times(void **state) {
    (void)state;
    static const int own[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, half[] = {0, 2, 4, 6, 8};
    static const int twice[] = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9};
    static const int two_thirds[] = {0, 1, 3, 4, 6, 7, 9}; /* 0, 1.5, 3, ...: ties to the earlier */
    static const int held[] = {0, 1, 2, 2, 2, 3, 3, 3, 4}; /* 3 comes three frames late */
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 10, 24, 0, 0, 0});
    check_frames(24, own, 10);
    check_frames(12, half, 5);
    check_frames(48, twice, 20);
    check_frames(16, two_thirds, 7);
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 10, 30, 0, 0, 0});
    check_frames(30, own, 10);
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 5, 16, 3, 4, 0});
    check_frames(16, held, 9);
}

static void check_near(const uint8_t *rgb, int t, int column, int row) {
    uint8_t want[3];
    video_fixture_colour(t, column, row, want);
    for (int c = 0; c < 3; c++)
        if (abs(rgb[c] - want[c]) > 3)
            fail_msg("channel %d is %d, not %d, of the cell %d, %d", c, rgb[c], want[c], column,
                     row);
}

/* The first frame at another extent. */
static void read_first(int width, int height, uint8_t *rgb) {
    struct Error err;
    bool end;
    struct VideoReader *reader = video_reader_open(path, width, height, 8, &err);
    if (!reader) fail_msg("%s", err.text);
    check(video_reader_next(reader, rgb, &end, &err));
    assert_false(end);
    video_reader_close(reader);
}

/* Centres of the four by four cells of the source, wherever they are in the picture. */
static void test_scale_and_crop(void **state) {
    (void)state;
    uint8_t rgb[3 * MAX_PIXELS];
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 2, 8, 0, 0, 0});
    read_first(WIDTH, HEIGHT, rgb);
    for (int y = 0; y < HEIGHT; y++) /* nothing to scale: exact */
        for (int x = 0; x < WIDTH; x++) {
            uint8_t want[3];
            video_fixture_colour(0, x / 8, y / 4, want);
            assert_memory_equal(rgb + 3 * (y * WIDTH + x), want, 3);
        }
    read_first(64, 32, rgb); /* twice as large */
    for (int row = 0; row < 4; row++)
        for (int column = 0; column < 4; column++)
            check_near(rgb + 3 * ((8 * row + 4) * 64 + 16 * column + 8), 0, column, row);
    read_first(16, 16, rgb); /* the middle two columns of cells, all rows */
    for (int row = 0; row < 4; row++)
        for (int column = 0; column < 2; column++)
            check_near(rgb + 3 * ((4 * row + 2) * 16 + 8 * column + 4), 0, 1 + column, row);
    read_first(32, 8, rgb); /* the middle two rows of cells, all columns */
    for (int row = 0; row < 2; row++)
        for (int column = 0; column < 4; column++)
            check_near(rgb + 3 * ((4 * row + 2) * 32 + 8 * column + 4), 0, column, 1 + row);
}

static void test_turned_videos(void **state) {
    (void)state;
    uint8_t rgb[3 * MAX_PIXELS];
    for (int turns = 1; turns < 4; turns++) {
        bool sideways = turns % 2 == 1;
        int width = sideways ? HEIGHT : WIDTH, height = sideways ? WIDTH : HEIGHT;
        video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 2, 8, 0, 0, turns});
        read_first(width, height, rgb);
        for (int row = 0; row < 4; row++)
            for (int column = 0; column < 4; column++) {
                /* where a clockwise turn takes the cell (column, row) of the stored picture */
                int to_column = turns == 1 ? 3 - row : turns == 2 ? 3 - column : row;
                int to_row = turns == 1 ? column : turns == 2 ? 3 - row : 3 - column;
                int x = (2 * to_column + 1) * width / 8, y = (2 * to_row + 1) * height / 8;
                check_near(rgb + 3 * (y * width + x), 0, column, row);
            }
    }
}

/* ---- clips ---- */

struct Seen {
    int first[64], last[64], n;
    int fail_at;
};

static bool note_clip(void *context, const float *clip, struct Error *err) {
    struct Seen *seen = context;
    enum { FRAMES = 3, PLANE = WIDTH * HEIGHT };
    if (seen->n == seen->fail_at) return error_set(err, "enough");
    seen->first[seen->n] = (int)((clip[0] + 1.0f) * 127.5f + 0.5f) / 7;
    seen->last[seen->n] = (int)((clip[(FRAMES - 1) * PLANE] + 1.0f) * 127.5f + 0.5f) / 7;
    seen->n++;
    /* green of the first cell, in the second plane */
    assert_true(clip[FRAMES * PLANE] == 20.0f / 127.5f - 1.0f);
    return true;
}

static void test_clips(void **state) {
    (void)state;
    static const struct {
        int64_t stride, most;
        int n, first[6];
    } cases[] = {
        {3, 0, 3, {0, 3, 6}},    {1, 0, 8, {0, 1, 2, 3, 4, 5}},
        {2, 0, 4, {0, 2, 4, 6}}, {5, 0, 2, {0, 5}},
        {7, 0, 2, {0, 7}},       {8, 0, 1, {0}},
        {3, 2, 2, {0, 3}},
    };
    struct Error err;
    int64_t n_clips;
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 10, 16, 0, 0, 0});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ClipPlan plan = {3, HEIGHT, WIDTH, 16, cases[i].stride, cases[i].most};
        struct Seen seen = {.fail_at = -1};
        check(video_clips_cut(path, &plan, note_clip, &seen, &n_clips, &err));
        assert_int_equal(n_clips, cases[i].n);
        assert_int_equal(seen.n, cases[i].n);
        for (int k = 0; k < seen.n && k < 6; k++) {
            assert_int_equal(seen.first[k], cases[i].first[k]);
            assert_int_equal(seen.last[k], cases[i].first[k] + 2);
        }
    }
    struct ClipPlan plan = {11, HEIGHT, WIDTH, 16, 11, 0};
    struct Seen seen = {.fail_at = -1};
    check(video_clips_cut(path, &plan, note_clip, &seen, &n_clips, &err));
    assert_int_equal(n_clips, 0);
    plan.frames = plan.stride = 3;
    seen.fail_at = 1;
    check_error(video_clips_cut(path, &plan, note_clip, &seen, &n_clips, &err), "enough");
    assert_int_equal(n_clips, 1);
}

/* ---- wrong files ---- */

static bool opens(const char *name, struct Error *err) {
    struct VideoReader *reader = video_reader_open(name, WIDTH, HEIGHT, 16, err);
    video_reader_close(reader);
    return reader != NULL;
}

static void test_wrong_files(void **state) {
    (void)state;
    struct Error err;
    char *wrong = scratch_path(scratch_folder(), "wrong.mov"), text[600];
    check_error(opens(wrong, &err), "No such file");
    check_error(opens(scratch_folder(), &err), "is not a file");
    check_error(opens("http://localhost/x.mp4", &err), "No such file");
    scratch_write(wrong, "", 0);
    check_error(opens(wrong, &err), "wrong.mov");
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 4, 16, 0, 0, 0});
    snprintf(text, sizeof text, "ffconcat version 1.0\nfile '%s'\n", path);
    scratch_write(wrong, text, strlen(text));
    check_error(opens(wrong, &err), "cannot be read as a video");
    snprintf(text, sizeof text,
             "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n"
             "file://%s\n#EXT-X-ENDLIST\n",
             path);
    scratch_write(wrong, text, strlen(text));
    check_error(opens(wrong, &err), "cannot be read as a video");
    /* half a minute between two frames */
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 4, 16, 2, 480, 0});
    struct VideoReader *reader = video_reader_open(path, WIDTH, HEIGHT, 16, &err);
    uint8_t rgb[3 * WIDTH * HEIGHT];
    bool end = false, good = reader != NULL;
    for (int i = 0; i < 10 && good && !end; i++) good = video_reader_next(reader, rgb, &end, &err);
    check_error(good, "time stamps jump");
    video_reader_close(reader);
    free(wrong);
}

/* Wherever a file ends, there are frames or there is an error, never a crash. */
static void test_truncated_videos(void **state) {
    (void)state;
    struct Error err;
    size_t n_file;
    char *cut = scratch_path(scratch_folder(), "cut.mov");
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 6, 16, 0, 0, 0});
    unsigned char *bytes = scratch_read(path, &n_file);
    int n_errors = 0;
    for (size_t n = 0; n < n_file; n += n_file / 60 + 1) {
        scratch_write(cut, bytes, n);
        struct VideoReader *reader = video_reader_open(cut, WIDTH, HEIGHT, 16, &err);
        uint8_t rgb[3 * WIDTH * HEIGHT];
        bool end = false, good = reader != NULL;
        while (good && !end) good = video_reader_next(reader, rgb, &end, &err);
        if (!good) assert_non_null(strstr(err.text, "cut.mov"));
        n_errors += !good;
        video_reader_close(reader);
    }
    assert_true(n_errors > 20);
    free(bytes);
    free(cut);
}

/* ---- captions ---- */

static void test_captions(void **state) {
    (void)state;
    static const char good[] = "a.mp4\ta red cat\r\n\nb\tein größerer Kater\nc.d\twith\ttabs";
    static const struct {
        const char *text, *reason;
        size_t n_bytes;
    } wrong[] = {
        {"a\tx\nno tab here\n", "line 2 is not name<TAB>caption", 16},
        {"\tno name\n", "line 1 is not", 9},
        {"a\t\n", "line 1 is not", 3},
        {"a\tx\nb\ty\na\tz\n", "line 3 repeats a name", 12},
        {"a\t\xFF\n", "line 1 is not valid UTF-8", 4},
        {"a\tx\0y\n", "line 1 is not valid UTF-8", 6},
    };
    struct Error err;
    char *file = scratch_path(scratch_folder(), "captions.txt");
    scratch_write(file, good, sizeof good - 1);
    struct Captions *captions = captions_open(file, &err);
    assert_non_null(captions);
    assert_string_equal(captions_find(captions, "/some/where/a.mp4", &err), "a red cat");
    assert_string_equal(captions_find(captions, "b.mkv", &err), "ein größerer Kater");
    assert_string_equal(captions_find(captions, "c.d", &err), "with\ttabs");
    assert_string_equal(captions_find(captions, "c.d.mp4", &err), "with\ttabs");
    check_error(captions_find(captions, "x/a", &err), "no line for the video 'a'");
    captions_close(captions);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        scratch_write(file, wrong[i].text, wrong[i].n_bytes);
        check_error(captions_open(file, &err), wrong[i].reason);
        assert_non_null(strstr(err.text, file));
    }
    check_error(captions_open(scratch_folder(), &err), scratch_folder());
    check_error(captions_open("no such file", &err), "No such file");
    unlink(file);
    assert_int_equal(mkfifo(file, 0600), 0);
    check_error(captions_open(file, &err), "not a regular file");
    unlink(file);
    free(file);
}

/* As long as a data set's: comparing each name with every other would take minutes. */
static void test_many_captions(void **state) {
    (void)state;
    enum { N = 100000, MOST_SECONDS = 5 };
    struct Error err;
    char *file = scratch_path(scratch_folder(), "many.txt"), *text = NULL;
    size_t n_bytes = 0;
    FILE *out = open_memstream(&text, &n_bytes);
    for (int i = 0; i < N; i++) fprintf(out, "clip-%d\tcaption %d\n", i, i);
    fclose(out);
    scratch_write(file, text, n_bytes);
    clock_t since = clock();
    struct Captions *captions = captions_open(file, &err);
    assert_non_null(captions);
    assert_string_equal(captions_find(captions, "clip-70001.mp4", &err), "caption 70001");
    assert_true(clock() - since < MOST_SECONDS * CLOCKS_PER_SEC);
    captions_close(captions);
    free(text);
    free(file);
}

/* ---- the command ---- */

static int run_command(char *captions, char *out, char *video, char *frames) {
    char *argv[] = {"video",      "--text",      captions,     "--out",     out,     "--frames",
                    frames,       "--height=16", "--width",    "32",        "--fps", "16",
                    "--text-dim", "6",           "--negative", "two words", video,   NULL};
    return cmd_data_video((int)(sizeof argv / sizeof *argv) - 1, argv);
}

static void test_command_makes_a_dataset(void **state) {
    (void)state;
    enum { FRAMES = 4, PLANE = WIDTH * HEIGHT, DIM = 6 };
    static float video[3 * FRAMES * PLANE], text[4 * DIM], want[4 * DIM];
    struct Error err;
    char *captions = scratch_path(scratch_folder(), "captions.txt"),
         *out = scratch_path(scratch_folder(), "out.h5");
    char *prompt;
    scratch_write(captions, "video\ta grid of colours\n", 24);
    video_fixture_write(path, &(struct VideoFixture){WIDTH, HEIGHT, 10, 16, 0, 0, 0});
    assert_int_equal(run_command(captions, out, path, "4"), EXIT_OK);
    struct Dataset *dataset = dataset_open(&out, 1, &err);
    if (!dataset) fail_msg("%s", err.text);
    const struct DatasetInfo *info = dataset_info(dataset);
    assert_int_equal(info->n_samples, 2);
    assert_int_equal(info->kind, DATASET_PIXELS);
    assert_int_equal(info->video_element, H5_U8);
    assert_true(info->fps == 16 && info->has_checksums);
    assert_string_equal(info->negative_prompt, "two words");
    assert_string_equal(info->text_encoder, TOY_TEXT_ENCODER);
    toy_text_embed("a grid of colours", DIM, want, 4);
    for (int64_t sample = 0; sample < 2; sample++) {
        check(dataset_read_sample(dataset, sample, 4, video, text, &err));
        check(dataset_read_prompt(dataset, sample, &prompt, &err));
        assert_string_equal(prompt, "a grid of colours");
        free(prompt);
        assert_memory_equal(text, want, sizeof text);
        for (int i = 0; i < 3 * FRAMES * PLANE; i++) {
            int c = i / (FRAMES * PLANE), t = i / PLANE % FRAMES, y = i / WIDTH % HEIGHT,
                x = i % WIDTH;
            uint8_t rgb[3];
            video_fixture_colour((int)(FRAMES * sample) + t, x / 8, y / 4, rgb);
            assert_true(video[i] == (float)rgb[c] / 127.5f - 1.0f);
        }
    }
    dataset_close(dataset);
    remove(out);
    assert_int_equal(run_command(captions, out, path, "11"), EXIT_USER); /* too short */
    assert_int_equal(run_command(captions, out, path, "0"), EXIT_USER);
    assert_int_equal(run_command(captions, out, captions, "4"), EXIT_USER);
    assert_int_equal(scratch_count(scratch_folder(), ".partial"), 0);
    assert_false(scratch_exists(out));
    free(captions);
    free(out);
}

static int set_up(void **state) {
    scratch_group_set_up(state);
    path = scratch_file("video.mov");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_at_their_times),
        cmocka_unit_test(test_scale_and_crop),
        cmocka_unit_test(test_turned_videos),
        cmocka_unit_test(test_clips),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_truncated_videos),
        cmocka_unit_test(test_captions),
        cmocka_unit_test(test_many_captions),
        cmocka_unit_test(test_command_makes_a_dataset),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_group_tear_down);
}
