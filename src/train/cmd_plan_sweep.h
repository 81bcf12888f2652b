/* The half of `tmd plan` that compares: combinations of keys over numbers of GPUs. */
#ifndef TMD_CMD_PLAN_SWEEP_H
#define TMD_CMD_PLAN_SWEEP_H

#include "train/plan_input.h"
#include "train/plan_sweep_keys.h"

/* Plans, prints and writes everything.  *any_works: whether each CONFIG has a combination and a
 * number of GPUs that fit. */
bool plan_sweep_command(const struct PlanFlags *flags, const struct Operands *operands,
                        const struct SweepCounts *counts, bool *any_works, struct Error *err);

#endif
