/* Every random draw of a training run, as a function of (seed, iteration, sample, purpose).
 *
 * `sample` is the sample's place in the global batch, never in a rank's, so that any number of ranks
 * and any resumed run draw the same. */
#ifndef TMD_DRAWS_H
#define TMD_DRAWS_H

#include "train/step_run.h"

enum DrawPurpose {
    DRAW_X1, DRAW_Y1, DRAW_EPS,        /* noises */
    DRAW_T, DRAW_T_STUDENT, DRAW_S,    /* times */
    DRAW_TM, DRAW_DROP, DRAW_INNER,    /* choices */
    DRAW_SAMPLER_X1, DRAW_SAMPLER_Y1,  /* samplers; `iteration` is the outer step */
    DRAW_PURPOSES
};

/* Uniform in (0, 1). */
double draw_uniform(uint64_t seed, int64_t iteration, int64_t sample, enum DrawPurpose purpose);
/* The stream that Backend.normal_fill takes. */
uint64_t draw_stream(int64_t iteration, enum DrawPurpose purpose);

/* Fills times and choices of `in` for samples first .. first + in->batch - 1 of the batch. */
void draw_times(const struct Config *config, enum StepKind kind, int64_t iteration, int64_t first,
                struct StepInputs *in);

#endif
