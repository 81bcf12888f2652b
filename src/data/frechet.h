/* How far one set of clips is from another, and how much clips of one prompt differ.
 *
 * The Frechet distance between two Gaussians (Dowson and Landau, 1982), as the FID of Heusel et al.
 * (NeurIPS 2017) uses it:
 *     d^2 = |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)
 * with mean m and covariance S of a set's features.  In place of a trained network a clip has fixed
 * random features, so the number can be compared only with numbers of this header:
 *     f_k = max(0, <w_k, z> / sqrt(dim z) + b_k),   k = 0 .. FRECHET_FEATURES-1
 * where z is the clip [C, F, H, W] averaged over areas down to at most FRECHET_GRID_FRAMES x
 * FRECHET_GRID_SIDE x FRECHET_GRID_SIDE, and w_k, b_k are standard normal draws of Philox under a
 * fixed key.  The rectifier makes mean and covariance see more than the first two moments of the
 * pixels.  Finite sets make d^2 a little too large: compare sets of equal numbers of clips. */
#ifndef TMD_DATA_FRECHET_H
#define TMD_DATA_FRECHET_H

#include <stdint.h>

enum { FRECHET_FEATURES = 64, FRECHET_GRID_FRAMES = 8, FRECHET_GRID_SIDE = 16 };

/* The random features for clips of one shape. */
struct FrechetMap;

struct FrechetMap *frechet_map_create(int64_t channels, int64_t frames, int64_t height,
                                      int64_t width);
void frechet_map_free(struct FrechetMap *map);

/* features [FRECHET_FEATURES] of clip [C, F, H, W]. */
void frechet_features(const struct FrechetMap *map, const float *clip, double *features);

/* Mean and scatter of the features of a set; starts as zeros, grows clip by clip (Welford). */
struct FrechetStats {
    int64_t n_clips;
    double mean[FRECHET_FEATURES];
    double scatter[FRECHET_FEATURES * FRECHET_FEATURES]; /* sum of outer products about the mean */
};

void frechet_add(const struct FrechetMap *map, const float *clip, struct FrechetStats *stats);

/* d^2 of two sets of at least two clips each; not less than 0.  NaN when a clip held a value that
 * was not finite. */
double frechet_distance(const struct FrechetStats *a, const struct FrechetStats *b);

/* d^2 of two Gaussians of `dim` dimensions: means [dim], symmetric covariances [dim, dim]. */
double frechet_gaussians(int64_t dim, const double *mean_a, const double *covariance_a,
                         const double *mean_b, const double *covariance_b);

/* Spread across seeds: the root mean square difference per element between two clips, averaged over
 * all pairs of the n_clips >= 2 clips [n_clips, n_elems] of one prompt.  0: all the same. */
double frechet_spread(const float *clips, int64_t n_clips, int64_t n_elems);

#endif
