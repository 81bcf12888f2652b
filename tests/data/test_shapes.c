/* The toy world: captions, balance, drawing, and the recogniser that reads clips back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/shapes.h"
#include "data/shapes_recognise.h"
#include "error.h"
#include "philox.h"

enum { FRAMES = 4, SIDE = 16, ELEMS = SHAPE_CHANNELS * FRAMES * SIDE * SIDE };

static bool same_spec(struct ShapeSpec a, struct ShapeSpec b) {
    return a.kind == b.kind && a.colour == b.colour && a.direction == b.direction;
}

static double normal(uint64_t seed, int64_t i) {
    struct Philox draw = philox(seed, (uint32_t)i, 0, 0, 0);
    return sqrt(-2 * log(philox_uniform(draw.word[0]))) *
           cos(2 * M_PI * philox_uniform(draw.word[1]));
}

static void add_noise(float *clip, int64_t n_elems, double sigma, uint64_t seed) {
    for (int64_t i = 0; i < n_elems; i++) clip[i] += (float)(sigma * normal(seed, i));
}

static void draw_sample(float *clip, uint64_t seed, uint64_t sample) {
    shapes_draw(clip, shapes_sample_spec(seed, sample), shapes_sample_pose(seed, sample), FRAMES,
                SIDE, SIDE);
}

static void test_captions(void **state) {
    (void)state;
    char caption[SHAPE_CAPTION_BYTES];
    shapes_caption((struct ShapeSpec){SHAPE_SQUARE, SHAPE_RED, SHAPE_LEFT}, caption);
    assert_string_equal(caption, "a red square moving left");
    for (int i = 0; i < SHAPE_SPECS; i++) {
        struct ShapeSpec parsed = {SHAPE_NONE, SHAPE_NONE, SHAPE_NONE};
        shapes_caption(shapes_spec(i), caption);
        assert_true(shapes_parse_caption(caption, &parsed));
        assert_true(same_spec(parsed, shapes_spec(i)));
        for (int j = 0; j < i; j++) assert_false(same_spec(shapes_spec(i), shapes_spec(j)));
    }
    static const char *const FOREIGN[] = {"", "a red square", "a red square moving left ",
                                          "a pink square moving left", "a red square moving"};
    for (int i = 0; i < 5; i++) {
        struct ShapeSpec untouched = {7, 7, 7};
        assert_false(shapes_parse_caption(FOREIGN[i], &untouched));
        assert_int_equal(untouched.kind, 7);
    }
}

static void test_every_run_holds_every_combination(void **state) {
    (void)state;
    int moved = 0;
    for (uint64_t run = 0; run < 3; run++) {
        int seen[SHAPE_KINDS][SHAPE_COLOURS][SHAPE_DIRECTIONS] = {0};
        for (uint64_t i = 0; i < SHAPE_SPECS; i++) {
            struct ShapeSpec spec = shapes_sample_spec(11, run * SHAPE_SPECS + i);
            assert_int_equal(seen[spec.kind][spec.colour][spec.direction]++, 0);
            moved += !same_spec(spec, shapes_sample_spec(12, run * SHAPE_SPECS + i));
            moved += !same_spec(spec, shapes_sample_spec(11, (run + 1) * SHAPE_SPECS + i));
        }
    }
    assert_true(moved > 300); /* of 384: other seeds and other runs have other orders */
}

static void test_poses_depend_on_seed_and_sample(void **state) {
    (void)state;
    struct ShapePose pose = shapes_sample_pose(3, 5), again = shapes_sample_pose(3, 5);
    assert_memory_equal(&pose, &again, sizeof pose);
    struct ShapePose next = shapes_sample_pose(3, 6), other = shapes_sample_pose(4, 5);
    assert_true(pose.across != next.across && pose.across != other.across);
}

/* The sum over a frame of how far channel values rise above black, in units of full pixels. */
static double frame_light(const float *clip, int64_t channel, int64_t frame) {
    double light = 0;
    const float *pixels = clip + (channel * FRAMES + frame) * SIDE * SIDE;
    for (int i = 0; i < SIDE * SIDE; i++) light += 0.5 * (pixels[i] + 1);
    return light;
}

/* The shape's own light, and at most that of a whole wake. */
static void assert_light(double light, double of_shape, double radius, double area) {
    double wake = SHAPE_WAKE_LIGHT * 2 * (radius + 0.5) * (radius + SHAPE_WAKE_LENGTH + 0.5);
    assert_true(light > of_shape - 0.06 * area);
    assert_true(light < of_shape + wake + 0.06 * area);
}

static void test_shapes_are_whole_and_pure(void **state) {
    (void)state;
    float clip[ELEMS];
    for (uint64_t sample = 0; sample < 512; sample++) {
        struct ShapeSpec spec = shapes_sample_spec(1, sample);
        struct ShapePose pose = shapes_sample_pose(1, sample);
        double r = pose.radius, rgb[3];
        const double area[SHAPE_KINDS] = {4 * r * r, M_PI * r * r * (1 - 0.44 * 0.44), 2 * r * r,
                                          4 * r * r * (2.0 / 3 - 1.0 / 9)};
        shapes_draw(clip, spec, pose, FRAMES, SIDE, SIDE);
        shapes_colour_rgb(spec.colour, rgb);
        for (int i = 0; i < ELEMS; i++) assert_true(clip[i] >= -1 && clip[i] <= 1);
        for (int c = 0; c < SHAPE_CHANNELS; c++)
            for (int f = 0; f < FRAMES; f++)
                assert_light(frame_light(clip, c, f), rgb[c] * area[spec.kind], r,
                             area[spec.kind]);
    }
}

static void test_drawing_is_deterministic(void **state) {
    (void)state;
    float once[ELEMS], again[ELEMS];
    draw_sample(once, 9, 1234567890123);
    draw_sample(again, 9, 1234567890123);
    assert_memory_equal(once, again, sizeof once);
    draw_sample(again, 10, 1234567890123);
    assert_memory_not_equal(once, again, sizeof once);
}

/* Draws `count` samples with noise, and counts what is recognised. */
static struct ShapeTally recognise_many(int64_t frames, int64_t height, int64_t width, int count,
                                        double sigma) {
    struct ShapeTally tally = {0};
    int64_t n_elems = SHAPE_CHANNELS * frames * height * width;
    float *clip = xmalloc((unsigned long)n_elems * sizeof *clip);
    for (int i = 0; i < count; i++) {
        struct ShapeSpec spec = shapes_sample_spec(21, (uint64_t)i);
        struct ShapeVerdict verdict;
        shapes_draw(clip, spec, shapes_sample_pose(21, (uint64_t)i), frames, height, width);
        if (sigma > 0) add_noise(clip, n_elems, sigma, (uint64_t)i + 1000);
        shapes_recognise(clip, frames, height, width, &verdict);
        shapes_tally(&tally, spec, verdict.seen);
    }
    free(clip);
    assert_int_equal(tally.clips, count);
    return tally;
}

static const struct {
    int64_t frames, height, width;
    int count;
} SIZES[] = {{4, 16, 16, 2048}, {2, 12, 12, 512}, {3, 20, 13, 512},
             {8, 16, 24, 256},  {5, 32, 32, 128}, {6, 48, 64, 64}};
enum { N_SIZES = sizeof SIZES / sizeof SIZES[0] };

static void test_clean_clips_are_all_recognised(void **state) {
    (void)state;
    int64_t clips = 0;
    for (int i = 0; i < N_SIZES; i++) {
        struct ShapeTally tally =
            recognise_many(SIZES[i].frames, SIZES[i].height, SIZES[i].width, SIZES[i].count, 0);
        assert_int_equal(tally.all, tally.clips);
        clips += tally.clips;
    }
    assert_true(clips >= 3000);
}

static void test_noisy_clips_are_recognised(void **state) {
    (void)state;
    for (int i = 0; i < N_SIZES; i++) {
        for (int noise = 1; noise <= 2; noise++) {
            struct ShapeTally tally = recognise_many(
                SIZES[i].frames, SIZES[i].height, SIZES[i].width, SIZES[i].count / 4, 0.1 * noise);
            assert_true(tally.all >= 0.99 * (double)tally.clips);
        }
    }
}

/* Each pixel becomes the mean of the 3 x 3 round it. */
static void blur(float *clip) {
    float old[ELEMS];
    memcpy(old, clip, sizeof old);
    for (int plane = 0; plane < SHAPE_CHANNELS * FRAMES; plane++) {
        for (int y = 1; y < SIDE - 1; y++) {
            for (int x = 1; x < SIDE - 1; x++) {
                const float *at = old + (plane * SIDE + y) * SIDE + x;
                float sum = 0;
                for (int dy = -1; dy <= 1; dy++)
                    for (int dx = -1; dx <= 1; dx++) sum += at[dy * SIDE + dx];
                clip[(plane * SIDE + y) * SIDE + x] = sum / 9;
            }
        }
    }
}

static void test_soft_and_dim_clips_are_recognised(void **state) {
    (void)state;
    struct ShapeTally soft = {0}, dim = {0};
    float clip[ELEMS];
    struct ShapeVerdict verdict;
    for (uint64_t i = 0; i < 256; i++) {
        draw_sample(clip, 5, i);
        blur(clip);
        shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
        shapes_tally(&soft, shapes_sample_spec(5, i), verdict.seen);
        draw_sample(clip, 5, i);
        for (int e = 0; e < ELEMS; e++) clip[e] = 0.75f * (clip[e] + 1) - 1.05f;
        shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
        shapes_tally(&dim, shapes_sample_spec(5, i), verdict.seen);
    }
    assert_int_equal(soft.colour, 256);
    assert_int_equal(soft.direction, 256);
    assert_true(soft.kind >= 230);
    assert_int_equal(dim.all, 256);
}

static void assert_sees_nothing(const float *clip) {
    struct ShapeVerdict verdict;
    shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
    assert_int_equal(verdict.seen.kind, SHAPE_NONE);
    assert_int_equal(verdict.seen.colour, SHAPE_NONE);
    assert_int_equal(verdict.seen.direction, SHAPE_NONE);
}

static void test_garbage_is_nothing(void **state) {
    (void)state;
    float clip[ELEMS];
    for (int level = -2; level <= 2; level++) { /* even grey */
        for (int i = 0; i < ELEMS; i++) clip[i] = 0.5f * (float)level;
        assert_sees_nothing(clip);
    }
    for (uint64_t seed = 0; seed < 300; seed++) { /* noise, from faint to the start of a sampler */
        struct ShapeVerdict verdict;
        memset(clip, 0, sizeof clip);
        add_noise(clip, ELEMS, 1, seed);
        assert_sees_nothing(clip);
        for (int i = 0; i < ELEMS; i++) clip[i] = -1;
        add_noise(clip, ELEMS, 0.02 * (double)(seed % 50), seed);
        shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
        assert_int_equal(verdict.seen.kind, SHAPE_NONE);
    }
    draw_sample(clip, 1, 1);
    clip[17] = NAN;
    assert_sees_nothing(clip);
    draw_sample(clip, 1, 1);
    clip[17] = INFINITY;
    assert_sees_nothing(clip);
}

/* Copies frame `from` of every channel over frame `to`. */
static void copy_frame(float *clip, int from, int to) {
    for (int c = 0; c < SHAPE_CHANNELS; c++)
        memcpy(clip + (c * FRAMES + to) * SIDE * SIDE, clip + (c * FRAMES + from) * SIDE * SIDE,
               SIDE * SIDE * sizeof *clip);
}

static void test_what_is_unclear_is_none(void **state) {
    (void)state;
    float clip[ELEMS], other[ELEMS];
    struct ShapeVerdict verdict;
    struct ShapePose middle = {.radius = SHAPE_RADIUS};
    struct ShapeSpec red = {SHAPE_RING, SHAPE_RED, SHAPE_UP};
    struct ShapeSpec blue = {SHAPE_RING, SHAPE_BLUE, SHAPE_UP};

    shapes_draw(clip, red, middle, FRAMES, SIDE, SIDE); /* does not move */
    for (int f = 1; f < FRAMES; f++) copy_frame(clip, 0, f);
    shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
    assert_int_equal(verdict.seen.direction, SHAPE_NONE);
    assert_int_equal(verdict.seen.kind, SHAPE_RING);
    assert_int_equal(verdict.seen.colour, SHAPE_RED);

    shapes_draw(clip, red, middle, FRAMES, SIDE, SIDE); /* goes and comes back */
    copy_frame(clip, 1, 2);
    copy_frame(clip, 0, 3);
    shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
    assert_int_equal(verdict.seen.direction, SHAPE_NONE);

    shapes_draw(clip, red, middle, FRAMES, SIDE, SIDE); /* jumps to and fro */
    copy_frame(clip, 3, 1);
    copy_frame(clip, 0, 2);
    shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
    assert_int_equal(verdict.seen.direction, SHAPE_NONE);

    /* Turns from red to blue: on average magenta. */
    shapes_draw(clip, red, middle, FRAMES, SIDE, SIDE);
    shapes_draw(other, blue, middle, FRAMES, SIDE, SIDE);
    for (int c = 0; c < SHAPE_CHANNELS; c++)
        memcpy(clip + (c * FRAMES + 2) * SIDE * SIDE, other + (c * FRAMES + 2) * SIDE * SIDE,
               2 * SIDE * SIDE * sizeof *clip);
    shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
    assert_int_equal(verdict.seen.colour, SHAPE_NONE);
    assert_int_equal(verdict.seen.direction, SHAPE_UP);
}

static void test_velocity_is_measured(void **state) {
    (void)state;
    float clip[ELEMS];
    struct ShapeVerdict verdict;
    struct ShapeSpec spec = {SHAPE_TRIANGLE, SHAPE_YELLOW, SHAPE_DOWN};
    shapes_draw(clip, spec, (struct ShapePose){.radius = SHAPE_RADIUS}, FRAMES, SIDE, SIDE);
    shapes_recognise(clip, FRAMES, SIDE, SIDE, &verdict);
    assert_true(fabs(verdict.velocity[0]) < 0.02);
    assert_true(fabs(verdict.velocity[1] - 2 * SHAPE_TRAVEL / (FRAMES - 1)) < 0.05);
    assert_true(verdict.correlation > 0.97 && verdict.correlation <= 1 + 1e-9);
    assert_true(verdict.colour_cosine > 0.999);
}

static void test_tally(void **state) {
    (void)state;
    struct ShapeTally tally = {0};
    struct ShapeSpec wanted = {SHAPE_CROSS, SHAPE_RED, SHAPE_UP}, seen = wanted;
    shapes_tally(&tally, wanted, seen);
    seen.kind = SHAPE_NONE;
    shapes_tally(&tally, wanted, seen);
    seen.colour = SHAPE_BLUE;
    shapes_tally(&tally, wanted, seen);
    seen.direction = SHAPE_DOWN;
    shapes_tally(&tally, wanted, seen);
    assert_int_equal(tally.clips, 4);
    assert_int_equal(tally.kind, 1);
    assert_int_equal(tally.colour, 2);
    assert_int_equal(tally.direction, 3);
    assert_int_equal(tally.all, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_captions),
        cmocka_unit_test(test_every_run_holds_every_combination),
        cmocka_unit_test(test_poses_depend_on_seed_and_sample),
        cmocka_unit_test(test_shapes_are_whole_and_pure),
        cmocka_unit_test(test_drawing_is_deterministic),
        cmocka_unit_test(test_clean_clips_are_all_recognised),
        cmocka_unit_test(test_noisy_clips_are_recognised),
        cmocka_unit_test(test_soft_and_dim_clips_are_recognised),
        cmocka_unit_test(test_garbage_is_nothing),
        cmocka_unit_test(test_what_is_unclear_is_none),
        cmocka_unit_test(test_velocity_is_measured),
        cmocka_unit_test(test_tally),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
