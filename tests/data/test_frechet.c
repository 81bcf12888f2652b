/* Frechet distance: Gaussians whose distance is known in closed form, sets of clips, spread. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/frechet.h"
#include "data/shapes.h"
#include "error.h"
#include "philox.h"

static double normal(uint64_t seed, int64_t i) {
    struct Philox draw = philox(seed, (uint32_t)i, 0, 0, 0);
    return sqrt(-2 * log(philox_uniform(draw.word[0]))) *
           cos(2 * M_PI * philox_uniform(draw.word[1]));
}

static void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.12g is not within %g of %.12g", value, tolerance, expected);
}

/* A random rotation [n, n]: Gram and Schmidt on Gaussian rows. */
static void random_rotation(int n, double *q, uint64_t seed) {
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < n; k++) q[i * n + k] = normal(seed, i * n + k);
        for (int j = 0; j < i; j++) {
            double dot = 0;
            for (int k = 0; k < n; k++) dot += q[i * n + k] * q[j * n + k];
            for (int k = 0; k < n; k++) q[i * n + k] -= dot * q[j * n + k];
        }
        double norm = 0;
        for (int k = 0; k < n; k++) norm += q[i * n + k] * q[i * n + k];
        for (int k = 0; k < n; k++) q[i * n + k] /= sqrt(norm);
    }
}

/* out = q^T diag(d) q */
static void conjugate(int n, double *out, const double *q, const double *d) {
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            out[i * n + j] = 0;
            for (int k = 0; k < n; k++) out[i * n + j] += q[k * n + i] * d[k] * q[k * n + j];
        }
    }
}

/* Covariances that commute: the distance is |m1 - m2|^2 + sum (sqrt d1 - sqrt d2)^2. */
static void test_commuting_covariances(void **state) {
    (void)state;
    static const int DIMS[] = {1, 2, 7, 64};
    for (int t = 0; t < 4; t++) {
        int n = DIMS[t];
        double q[64 * 64], a[64 * 64], b[64 * 64], da[64], db[64], ma[64], mb[64], expected = 0;
        random_rotation(n, q, 3);
        for (int i = 0; i < n; i++) {
            da[i] = exp(normal(4, i));
            db[i] = i % 3 == 1 ? 0 : exp(normal(5, i)); /* some directions are flat */
            ma[i] = normal(6, i);
            mb[i] = normal(7, i);
            expected += pow(ma[i] - mb[i], 2) + pow(sqrt(da[i]) - sqrt(db[i]), 2);
        }
        conjugate(n, a, q, da);
        conjugate(n, b, q, db);
        assert_near(frechet_gaussians(n, ma, a, mb, b), expected, 1e-6 * expected);
        assert_near(frechet_gaussians(n, mb, b, ma, a), expected, 1e-6 * expected);
        assert_near(frechet_gaussians(n, ma, a, ma, a), 0, 1e-9 * n);
    }
}

/* Two dimensions have a closed form without commuting:
 * Tr (S1 S2)^1/2 = sqrt(Tr S1 S2 + 2 sqrt(det S1 det S2)). */
static void test_two_dimensions(void **state) {
    (void)state;
    const double zero[2] = {0, 0}, a[4] = {2, 0.7, 0.7, 1}, b[4] = {1.5, -0.9, -0.9, 3};
    double trace = a[0] * b[0] + a[1] * b[2] + a[2] * b[1] + a[3] * b[3];
    double dets = (a[0] * a[3] - a[1] * a[2]) * (b[0] * b[3] - b[1] * b[2]);
    double expected = a[0] + a[3] + b[0] + b[3] - 2 * sqrt(trace + 2 * sqrt(dets));
    assert_near(frechet_gaussians(2, zero, a, zero, b), expected, 1e-12);
}

enum { FRAMES = 4, SIDE = 16, ELEMS = 3 * FRAMES * SIDE * SIDE, SET = 256 };

/* Statistics of SET drawn clips, each with its values changed by `spoil` unless that is NULL. */
static struct FrechetStats *drawn_set(const struct FrechetMap *map, uint64_t first,
                                      void (*spoil)(float *clip, uint64_t sample)) {
    struct FrechetStats *stats = xcalloc(sizeof *stats);
    float clip[ELEMS];
    for (uint64_t i = first; i < first + SET; i++) {
        shapes_draw(clip, shapes_sample_spec(1, i), shapes_sample_pose(1, i), FRAMES, SIDE, SIDE);
        if (spoil) spoil(clip, i);
        frechet_add(map, clip, stats);
    }
    return stats;
}

static void fade(float *clip, uint64_t sample) {
    (void)sample;
    for (int i = 0; i < ELEMS; i++) clip[i] = 0.6f * (clip[i] + 1) - 1;
}

static void collapse(float *clip, uint64_t sample) {
    (void)sample;
    shapes_draw(clip, shapes_spec(0), shapes_sample_pose(1, 0), FRAMES, SIDE, SIDE);
}

static void roughen(float *clip, uint64_t sample) {
    for (int i = 0; i < ELEMS; i++) clip[i] += (float)(0.5 * normal(sample, i));
}

static void break_one(float *clip, uint64_t sample) {
    if (sample == 3) clip[99] = NAN;
}

static void test_sets_of_clips(void **state) {
    (void)state;
    struct FrechetMap *map = frechet_map_create(3, FRAMES, SIDE, SIDE);
    struct FrechetStats *real = drawn_set(map, 0, NULL), *same = drawn_set(map, 0, NULL),
                        *fresh = drawn_set(map, SET, NULL), *faded = drawn_set(map, SET, fade),
                        *rough = drawn_set(map, SET, roughen),
                        *collapsed = drawn_set(map, SET, collapse),
                        *broken = drawn_set(map, 0, break_one);
    assert_int_equal(real->n_clips, SET);
    assert_near(frechet_distance(real, same), 0, 1e-9);
    double fair = frechet_distance(real, fresh);
    assert_true(fair > 0);
    assert_true(frechet_distance(real, faded) > 3 * fair);
    assert_true(frechet_distance(real, rough) > 3 * fair);
    assert_true(frechet_distance(real, collapsed) > 10 * fair);
    assert_true(isnan(frechet_distance(real, broken)));
    free(real);
    free(same);
    free(fresh);
    free(faded);
    free(rough);
    free(collapsed);
    free(broken);
    frechet_map_free(map);
}

/* Welford's running statistics against two passes over the features. */
static void test_statistics(void **state) {
    (void)state;
    enum { N = FRECHET_FEATURES, CLIPS = 40 };
    static double features[CLIPS][N];
    float clip[ELEMS];
    struct FrechetMap *map = frechet_map_create(3, FRAMES, SIDE, SIDE);
    struct FrechetStats *stats = xcalloc(sizeof *stats);
    for (uint64_t i = 0; i < CLIPS; i++) {
        shapes_draw(clip, shapes_sample_spec(2, i), shapes_sample_pose(2, i), FRAMES, SIDE, SIDE);
        frechet_features(map, clip, features[i]);
        frechet_add(map, clip, stats);
    }
    int alive = 0;
    for (int k = 0; k < N; k++) {
        double mean = 0, scatter = 0;
        int next = (k + 1) % N;
        for (int i = 0; i < CLIPS; i++) {
            assert_true(features[i][k] >= 0); /* rectified */
            mean += features[i][k] / CLIPS;
        }
        for (int i = 0; i < CLIPS; i++)
            scatter += (features[i][k] - mean) * (features[i][next] - stats->mean[next]);
        assert_near(stats->mean[k], mean, 1e-12);
        assert_near(stats->scatter[k * N + next], scatter, 1e-10);
        assert_near(stats->scatter[next * N + k], scatter, 1e-10);
        alive += mean > 0;
    }
    assert_true(alive > N / 2);
    free(stats);
    frechet_map_free(map);
}

/* Areas of a large clip are averaged: enlarging a clip by a whole factor changes no feature. */
static void test_large_clips_are_averaged(void **state) {
    (void)state;
    enum { FACTOR = 3, FRAMES_IN = 8, BIG = SIDE * FACTOR };
    float *small = xmalloc(FRAMES_IN * SIDE * SIDE * sizeof(float));
    float *large = xmalloc(2 * FRAMES_IN * BIG * BIG * sizeof(float));
    for (int i = 0; i < FRAMES_IN * SIDE * SIDE; i++) small[i] = (float)normal(8, i);
    for (int f = 0; f < 2 * FRAMES_IN; f++)
        for (int y = 0; y < BIG; y++)
            for (int x = 0; x < BIG; x++)
                large[(f * BIG + y) * BIG + x] =
                    small[(f / 2 * SIDE + y / FACTOR) * SIDE + x / FACTOR];
    struct FrechetMap *map = frechet_map_create(1, FRAMES_IN, SIDE, SIDE);
    struct FrechetMap *large_map = frechet_map_create(1, 2 * FRAMES_IN, BIG, BIG);
    double features[FRECHET_FEATURES], large_features[FRECHET_FEATURES];
    frechet_features(map, small, features);
    frechet_features(large_map, large, large_features);
    for (int k = 0; k < FRECHET_FEATURES; k++) assert_near(large_features[k], features[k], 1e-12);
    frechet_map_free(map);
    frechet_map_free(large_map);
    free(small);
    free(large);
}

static void test_spread(void **state) {
    (void)state;
    const float same[] = {1, 2, 1, 2, 1, 2}, apart[] = {0, 0, 3, 3, 0, 0};
    assert_near(frechet_spread(same, 3, 2), 0, 0);
    assert_near(frechet_spread(apart, 2, 2), 3, 1e-12);
    assert_near(frechet_spread(apart, 3, 2), 2, 1e-12); /* 3, 0, 3 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commuting_covariances),
        cmocka_unit_test(test_two_dimensions),
        cmocka_unit_test(test_sets_of_clips),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_large_clips_are_averaged),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
