/* What clips of the shapes world are worth, from their pixels: do they show what the prompts say,
 * are they distributed like real clips, do they differ from seed to seed? */
#ifndef TMD_EVAL_SCORES_H
#define TMD_EVAL_SCORES_H

#include "data/dataset.h"
#include "data/frechet.h"
#include "data/shapes_recognise.h"

struct Scores {
    double nfe;              /* evaluations of the teacher for one clip; NaN: the clips are real */
    double seconds_per_clip; /* wall time of sampling; NaN likewise */
    struct ShapeTally tally;
    double frechet; /* to the reference clips (frechet.h); NaN when a clip is not finite */
    double spread;  /* RMS difference between clips of one prompt, mean over the prompts that occur
                       more than once; NaN if none does */
};

/* The share of clips in which shape, colour and direction are all right. */
double scores_match(const struct Scores *scores);

/* The prompts that all samplers draw, and real clips to compare with. */
struct Judge {
    const struct DatasetInfo *info;
    int64_t n_clips;
    struct ShapeSpec *wanted; /* [n_clips] */
    struct FrechetMap *map;
    struct FrechetStats *reference;
    float *real; /* [n_clips, C, F, H, W]: the data's clips of these very prompts */
};

/* Prompts and real clips are samples 0 .. n_clips - 1 of `dataset`, the reference is the next
 * n_clips. An error if there are too few or if one is not of the shapes world.  judge_free is
 * harmless on zeros and after an error. */
bool judge_open(struct Judge *judge, struct Dataset *dataset, int64_t n_clips, struct Error *err);
void judge_free(struct Judge *judge);

/* Fills tally, frechet and spread for clips [n_clips, C, F, H, W]. */
void judge_clips(const struct Judge *judge, const float *clips, struct Scores *scores);

/* z of the hypothesis that two shares, k_a and k_b of n each, come from the same probability
 * (pooled two-proportion test); positive when a's is larger, 0 when both are 0 or both 1. */
double two_proportion_z(int64_t k_a, int64_t k_b, int64_t n);

#endif
