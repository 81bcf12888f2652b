/* What the steps share: short names for what every line needs. */
#ifndef TMD_STEP_COMMON_H
#define TMD_STEP_COMMON_H

#include "train/step.h"

/* The tapes (what forward keeps for backward) of all networks that a step may evaluate.
 * `passing_...` are for passes without a backward. */
struct StepTapes {
    struct WanTape teacher, other; /* `other`: the fake score, and passes without a backward */
    struct BackboneTape backbone;
    struct FlowHeadTape head, passing_head;
    struct BackboneTape passing_backbone;
    struct GeneratorTape generator;
    struct DiscriminatorTape discriminator;
};

/* sample_weight divided by the number of ranks that share a sample's tokens.  It is the weight of
 * what all of these compute alike, and then sum: losses, and gradients of the discriminator. */
double step_replicated_weight(const struct StepContext *ctx);

/* A buffer for a batch of latents. */
float *step_latents(const struct StepContext *ctx, int64_t batch);

/* out[b] = sum_k coef[k][b] in[k][b]. */
struct Term {
    const float *in;
    const double *coef; /* [B] host memory, or NULL: `same` for all */
    double same;
};
void step_combine(const struct StepContext *ctx, int64_t batch, float *out, int n_terms,
                  const struct Term *terms);

/* out = (1 - t) data + t noise. */
void step_noise_to(const struct StepContext *ctx, int64_t batch, float *out, const float *data,
                   const float *noise, const double *t);

/* Each sample's text, or the negative prompt where the text was dropped. */
const Act *step_text(const struct StepContext *ctx, const struct StepInputs *in);

/* The generator's inputs of a stage-two or KD pass: x_t from x and x1 at t_student. */
struct GeneratorInputs step_generator_inputs(const struct StepContext *ctx,
                                             const struct StepInputs *in);

#endif
