/* Samplers: from noise to latents.  No gradients; all arena memory but the result is given back. */
#ifndef TMD_SAMPLER_H
#define TMD_SAMPLER_H

#include "model/generator.h"

/* Algorithm 1 of TMD, for M outer steps over t_M > ... > t_0 = 0:
 *     y = inner roll-out from fresh noise given m(x, t_i);  x -= (t_i - t_{i-1}) y
 * x [B, C, F, H, W]: in, noise; out, the sample.  y1 [M, B, C, F, H, W]: the inner noise of each
 * outer step, in the order of the steps (NULL with head_blocks = 0, where y is the network's
 * velocity). */
void student_sample(const struct Student *student, int64_t batch, float *x, const float *y1,
                    const Act *text, struct Arena *arena, struct GeneratorTape *tape);

struct TeacherSampler {
    int64_t steps;
    double shift, guidance; /* guidance: v_neg + g (v - v_neg); 1: off */
    const struct IntList *skip_layers; /* blocks left out of the negative pass; NULL: none */
};

/* Euler integration of the guided ODE dx/dt = v over t_k = shift_time(k / steps, shift), from 1 to
 * 0. x as above; text and neg_text [B, text_len, text_dim]. */
void teacher_sample(const struct Wan *wan, struct TeacherSampler how, int64_t batch, float *x,
                    const Act *text, const Act *neg_text, struct Arena *arena, struct WanTape *tape);

#endif
