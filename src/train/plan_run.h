/* `tmd plan`: whether a configuration fits a machine and how long it takes, told without the
 * machine.
 *
 * Nothing here knows the method: the trainer's own code is run over a backend and a communicator
 * that only count (plan_step.h, plan_memory.h), so that what is planned is what will run.  What a
 * table of the machine assumes, the plan assumes.  Not planned: reading data, checkpoints,
 * previews. */
#ifndef TMD_PLAN_RUN_H
#define TMD_PLAN_RUN_H

#include <stdio.h>

#include "train/plan_memory.h"
#include "train/plan_step.h"

enum { PLAN_MAX_KINDS = 2 };

struct Plan {
    const struct Config *config;
    struct PlanTarget target;
    int64_t tokens; /* plan_tokens */
    int64_t share;  /* samples of the GPU that has the most of a batch */
    struct PlanMemory memory;
    int n_kinds; /* of steps that the stage alternates between */
    struct PlanStep steps[PLAN_MAX_KINDS];
    int64_t n_iterations[PLAN_MAX_KINDS]; /* of each kind in the run */
    double preparation_seconds;           /* before the first: KD's teacher makes its pairs */
};

/* Of a sample, whose video the patches tile. */
int64_t plan_tokens(const struct Config *config, struct VideoShape video);

/* Fails if a GPU would be left without a sample, for another precision than that of the tables, and
 * for videos that the networks cannot read. */
bool plan_make(struct Plan *plan, const struct Config *config, const struct PlanTarget *target,
               struct Error *err);

bool plan_fits(const struct Plan *plan);
/* Seconds of the preparation and of all iterations. */
double plan_run_seconds(const struct Plan *plan);

/* Of one GPU in all iterations. */
struct PlanTotals {
    struct OpTally whole; /* its seconds are those of the iterations, waiting included */
    struct OpTally ops[OP_COUNT], phases[PLAN_PHASES];
    enum Op slowest;
    double model_flops, link_seconds;
};
struct PlanTotals plan_totals(const struct Plan *plan);
/* Model flops as a share of the peak, in all iterations. */
double plan_mfu(const struct Plan *plan);

/* Keys that would make a difference, found by planning anew: changes with which a plan that does
 * not fit does, or with which one that fits is faster by 1 % or more and fits still.  Tried are
 * train.recompute, and train.micro_batch doubled and 1. */
enum { PLAN_MAX_CHANGES = 8, PLAN_CHANGE_BYTES = 80 };
struct PlanChange {
    char key[PLAN_CHANGE_BYTES]; /* "train.recompute=none train.micro_batch=2" */
    double seconds_saved;        /* of the run */
    int64_t bytes_saved;         /* of the memory */
};
/* Returns how many; those that save the most time come first. */
int plan_changes(const struct Plan *plan, struct PlanChange changes[PLAN_MAX_CHANGES]);

/* As a table; the reader knows the configuration and the target. */
void plan_print(const struct Plan *plan, FILE *out);

#endif
