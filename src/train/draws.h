/* Every random draw of a training run, as a function of (seed, iteration, sample, purpose).
 *
 * `sample` is the sample's place in the global batch, never in a rank's share of it, so that any
 * number of ranks and any resumed run draw the same.  The generator is Philox (philox.h):
 *
 *     stream   iteration * 256 + purpose
 *     scalar   the first word at counter (0, sample, stream)
 *     noise    normal_fill of ops_video.h with that stream */
#ifndef TMD_DRAWS_H
#define TMD_DRAWS_H

#include "train/step_run.h"

enum DrawPurpose {
    DRAW_X1, DRAW_Y1, DRAW_EPS,        /* noises */
    DRAW_T, DRAW_T_STUDENT, DRAW_S,    /* times */
    DRAW_TM, DRAW_DROP, DRAW_INNER,    /* choices: r = s or not, text dropped, inner step */
    DRAW_SAMPLER_X1, DRAW_SAMPLER_Y1,  /* samplers; `iteration` is the outer step */
    DRAW_PURPOSES
};

/* Uniform in (0, 1). */
double draw_uniform(uint64_t seed, int64_t iteration, int64_t sample, enum DrawPurpose purpose);
/* The stream that Backend.normal_fill takes. */
uint64_t draw_stream(int64_t iteration, enum DrawPurpose purpose);

/* Fills times and choices of `in` for samples first .. first + in->batch - 1 of the global batch:
 *
 *     teacher     t = shift(U), text dropped with probability text_dropout
 *     KD          t_student = t_max
 *     stage one   t uniform over the outer grid's points but 0; s = clip(shift(U)); r = s with
 *                 probability tm_prob, else the largest point of the inner grid not above s
 *     stage two   t_student as t of stage one; renoising time t = clip(shift(U)); (s, r) one step
 *                 of the inner grid, uniform */
void draw_times(const struct Config *config, enum StepKind kind, int64_t iteration, int64_t first,
                struct StepInputs *in);

#endif
