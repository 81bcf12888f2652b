/* The discriminator's heads in double, straight from the formulas of model/discriminator.h and on
 * the parameters' names: what the fast ones are held against. */
#ifndef TMD_NAIVE_DISCRIMINATOR_H
#define TMD_NAIVE_DISCRIMINATOR_H

#include "model/model_config.h"
#include "model/weights.h"

enum { NAIVE_HEADS = 2 };

struct NaiveDiscriminator {
    struct ModelConfig model;
    struct DiscriminatorConfig config; /* with NAIVE_HEADS features */
    struct VideoShape latents;
    int64_t batch;
    const struct ParamTable *table;
    double *params;            /* laid out as the table says */
    double *taps[NAIVE_HEADS]; /* each [B, dim / (pt ph pw), F, H, W] */
};

/* logits [B] of one head. */
void naive_discriminator_head(const struct NaiveDiscriminator *naive, int head, double *logits);

#endif
