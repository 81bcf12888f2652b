/* From summed gradients to new weights: norm, clipping, AdamW (Loshchilov and Hutter, 2019), EMA;
 * learning rates over time.  Each rank works on its own share of the weights; the formulas stand in
 * ops_optim.h. */
#ifndef TMD_OPTIMIZER_H
#define TMD_OPTIMIZER_H

#include "train/networks.h"

/* The role's learning rate at iteration k: linear warm-up over the first `warmup` iterations, then
 * constant, or a cosine down to lr_min_ratio at the last iteration. */
double learning_rate(const struct Config *config, enum Role role, int64_t iteration);

/* The sum of squares of the gradients in this rank's share.  `scratch`: one double on the device. */
double gradient_norm_squared(const struct Weights *weights, double *scratch);

/* One AdamW update of this rank's share, then of its EMA if there is one.  `step` counts this
 * role's updates from 1; `norm` is that of the whole gradient, of all shares.  If it is above
 * optimizer.grad_clip (0: off), the gradient is scaled down to that norm. */
void optimizer_update(const struct Config *config, struct Weights *weights, enum Role role,
                      int64_t iteration, int64_t step, double norm);

#endif
