/* Random features, Gaussian Frechet distance and spread.  See frechet.h for the formulas.
 *
 * Matrices are row-major [n, n] in double.  The symmetric square root comes from cyclic Jacobi
 * rotations (Golub and Van Loan, Matrix Computations, 8.5): slower than a library's routine, exact
 * to rounding, and quick enough for the few dozen dimensions here. */
#include "data/frechet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "minmax.h"
#include "philox.h"

/* The key of the weights: changing it changes every distance. */
static const uint64_t FEATURE_KEY = 0x66726563686574; /* "frechet" */
enum { WEIGHT_DRAW = 0, BIAS_DRAW = 1 };

struct FrechetMap {
    int64_t frames, height, width; /* of a clip */
    int64_t grid[4];               /* channels, frames, height, width of z */
    int64_t n_grid;                /* their product */
    float *weights;                /* [FRECHET_FEATURES, n_grid], already over sqrt(n_grid) */
    double biases[FRECHET_FEATURES];
};

/* Two standard normals (Box and Muller). */
static void normal_pair(uint64_t index, uint32_t purpose, double out[2]) {
    struct Philox draw = philox(FEATURE_KEY, (uint32_t)index, (uint32_t)(index >> 32), purpose, 0);
    double radius = sqrt(-2 * log(philox_uniform(draw.word[0])));
    double angle = 2 * M_PI * philox_uniform(draw.word[1]);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

struct FrechetMap *frechet_map_create(int64_t channels, int64_t frames, int64_t height,
                                      int64_t width) {
    TMD_CHECK(channels > 0 && frames > 0 && height > 0 && width > 0, "an empty clip");
    struct FrechetMap *map = xmalloc(sizeof *map);
    *map = (struct FrechetMap){
        .frames = frames,
        .height = height,
        .width = width,
        .grid = {channels, smaller(frames, FRECHET_GRID_FRAMES), smaller(height, FRECHET_GRID_SIDE),
                 smaller(width, FRECHET_GRID_SIDE)},
    };
    map->n_grid = map->grid[0] * map->grid[1] * map->grid[2] * map->grid[3];
    int64_t n_weights = FRECHET_FEATURES * map->n_grid; /* even, as the features are */
    map->weights = xmalloc((unsigned long)n_weights * sizeof *map->weights);
    double pair[2], scale = 1 / sqrt((double)map->n_grid);
    for (int64_t i = 0; i < n_weights; i += 2) {
        normal_pair((uint64_t)i, WEIGHT_DRAW, pair);
        map->weights[i] = (float)(scale * pair[0]);
        map->weights[i + 1] = (float)(scale * pair[1]);
    }
    for (int64_t k = 0; k < FRECHET_FEATURES; k += 2)
        normal_pair((uint64_t)k, BIAS_DRAW, &map->biases[k]);
    return map;
}

void frechet_map_free(struct FrechetMap *map) {
    if (!map) return;
    free(map->weights);
    free(map);
}

/* Adds to z [grid] each element of the clip over the number of elements of its cell.  Element i of
 * n falls into cell i * m / n of m. */
static void average_areas(const struct FrechetMap *map, const float *clip, double *z,
                          int64_t *count) {
    const int64_t *grid = map->grid;
    for (int64_t c = 0, i = 0; c < grid[0]; c++) {
        for (int64_t f = 0; f < map->frames; f++) {
            for (int64_t y = 0; y < map->height; y++) {
                int64_t gf = f * grid[1] / map->frames, gy = y * grid[2] / map->height;
                int64_t row = ((c * grid[1] + gf) * grid[2] + gy) * grid[3];
                for (int64_t x = 0; x < map->width; x++, i++) {
                    int64_t cell = row + x * grid[3] / map->width;
                    z[cell] += clip[i];
                    count[cell]++;
                }
            }
        }
    }
    for (int64_t i = 0; i < map->n_grid; i++) z[i] /= (double)count[i];
}

void frechet_features(const struct FrechetMap *map, const float *clip, double *features) {
    double *z = xcalloc((unsigned long)map->n_grid * sizeof *z);
    int64_t *count = xcalloc((unsigned long)map->n_grid * sizeof *count);
    average_areas(map, clip, z, count);
    for (int64_t k = 0; k < FRECHET_FEATURES; k++) {
        double sum = map->biases[k];
        for (int64_t i = 0; i < map->n_grid; i++)
            sum += (double)map->weights[k * map->n_grid + i] * z[i];
        features[k] = sum < 0 ? 0 : sum; /* NaN stays NaN */
    }
    free(count);
    free(z);
}

void frechet_add(const struct FrechetMap *map, const float *clip, struct FrechetStats *stats) {
    enum { N = FRECHET_FEATURES };
    double features[N], before[N];
    frechet_features(map, clip, features);
    stats->n_clips++;
    for (int k = 0; k < N; k++) {
        before[k] = features[k] - stats->mean[k];
        stats->mean[k] += before[k] / (double)stats->n_clips;
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            stats->scatter[i * N + j] += before[i] * (features[j] - stats->mean[j]);
}

double frechet_distance(const struct FrechetStats *a, const struct FrechetStats *b) {
    enum { N = FRECHET_FEATURES };
    TMD_CHECK(a->n_clips >= 2 && b->n_clips >= 2, "a set of fewer than two clips");
    double *covariance = xmalloc(2 * N * N * sizeof *covariance), *other = covariance + N * N;
    for (int i = 0; i < N * N; i++) {
        covariance[i] = a->scatter[i] / (double)(a->n_clips - 1);
        other[i] = b->scatter[i] / (double)(b->n_clips - 1);
    }
    double distance = frechet_gaussians(N, a->mean, covariance, b->mean, other);
    free(covariance);
    return distance;
}

/* One Jacobi rotation: makes a[p][q] zero and keeps vectors^T * (old a) * vectors = a. */
static void rotate(int64_t n, double *a, double *vectors, int64_t p, int64_t q) {
    double apq = a[p * n + q];
    if (apq == 0) return;
    double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + hypot(theta, 1));
    double c = 1 / hypot(t, 1), s = t * c;
    for (int64_t k = 0; k < n; k++) { /* columns p and q */
        double akp = a[k * n + p], akq = a[k * n + q];
        a[k * n + p] = c * akp - s * akq;
        a[k * n + q] = s * akp + c * akq;
        double vkp = vectors[k * n + p], vkq = vectors[k * n + q];
        vectors[k * n + p] = c * vkp - s * vkq;
        vectors[k * n + q] = s * vkp + c * vkq;
    }
    for (int64_t k = 0; k < n; k++) { /* rows p and q */
        double apk = a[p * n + k], aqk = a[q * n + k];
        a[p * n + k] = c * apk - s * aqk;
        a[q * n + k] = s * apk + c * aqk;
    }
}

/* Eigenvalues on the diagonal of `a`, eigenvectors in the columns of `vectors`.  Convergence is
 * quadratic: fewer than ten sweeps do; the bound is for matrices that are not numbers. */
static void symmetric_eigen(int64_t n, double *a, double *vectors) {
    for (int64_t i = 0; i < n * n; i++) vectors[i] = i / n == i % n;
    for (int sweep = 0; sweep < 50; sweep++) {
        double off = 0, all = 0;
        for (int64_t i = 0; i < n * n; i++) {
            all += a[i] * a[i];
            if (i / n != i % n) off += a[i] * a[i];
        }
        if (!(off > 1e-30 * all)) return;
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) rotate(n, a, vectors, p, q);
    }
}

/* Rounding can push a zero eigenvalue of a covariance below zero. */
static double root(double eigenvalue) {
    return eigenvalue < 0 ? 0 : sqrt(eigenvalue);
}

/* out = a b, all [n, n]. */
static void multiply(int64_t n, double *out, const double *a, const double *b) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t k = 0; k < n; k++) sum += a[i * n + k] * b[k * n + j];
            out[i * n + j] = sum;
        }
    }
}

/* out = s^1/2 of a symmetric, positive semidefinite s. */
static void symmetric_root(int64_t n, double *out, const double *s) {
    double *values = xmalloc((unsigned long)(2 * n * n) * sizeof *values);
    double *vectors = values + n * n;
    memcpy(values, s, (size_t)(n * n) * sizeof *values);
    symmetric_eigen(n, values, vectors);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t k = 0; k < n; k++)
                sum += vectors[i * n + k] * root(values[k * n + k]) * vectors[j * n + k];
            out[i * n + j] = sum;
        }
    }
    free(values);
}

double frechet_gaussians(int64_t dim, const double *mean_a, const double *covariance_a,
                         const double *mean_b, const double *covariance_b) {
    const int64_t n = dim;
    double *half = xmalloc((unsigned long)(3 * n * n) * sizeof *half);
    double *work = half + n * n, *inner = work + n * n;
    symmetric_root(n, half, covariance_a);
    multiply(n, work, half, covariance_b);
    multiply(n, inner, work, half);
    symmetric_eigen(n, inner, work);
    double distance = 0;
    for (int64_t i = 0; i < n; i++) {
        double gap = mean_a[i] - mean_b[i];
        distance += gap * gap + covariance_a[i * n + i] + covariance_b[i * n + i] -
                    2 * root(inner[i * n + i]);
    }
    free(half);
    return distance < 0 ? 0 : distance;
}

double frechet_spread(const float *clips, int64_t n_clips, int64_t n_elems) {
    TMD_CHECK(n_clips >= 2 && n_elems > 0, "no two clips to compare");
    double sum = 0;
    for (int64_t i = 0; i < n_clips; i++) {
        for (int64_t j = i + 1; j < n_clips; j++) {
            double squares = 0;
            for (int64_t k = 0; k < n_elems; k++) {
                double gap = (double)clips[i * n_elems + k] - (double)clips[j * n_elems + k];
                squares += gap * gap;
            }
            sum += sqrt(squares / (double)n_elems);
        }
    }
    return sum / (0.5 * (double)n_clips * (double)(n_clips - 1));
}
