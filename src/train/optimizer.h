/* From summed gradients to new weights: norm, clipping, AdamW, EMA; learning rates over time. */
#ifndef TMD_OPTIMIZER_H
#define TMD_OPTIMIZER_H

#include "train/networks.h"

/* The role's learning rate at iteration k: linear warm-up over the first `warmup` iterations, then
 * constant, or a cosine down to lr_min_ratio at the last iteration. */
double learning_rate(const struct Config *config, enum Role role, int64_t iteration);

/* Of all of a role's gradients that this process holds.  `scratch`: one double on the device. */
double gradient_norm_squared(const struct Weights *weights, double *scratch);

/* One AdamW update; `step` counts this role's updates from 1. Gradients above the norm `grad_clip` (0:
 * never) are scaled down to it. */
void optimizer_update(const struct Config *config, struct Weights *weights, enum Role role,
                      int64_t iteration, int64_t step, double norm);

#endif
