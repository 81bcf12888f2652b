/* One iteration of a kind, rehearsed: the learner's own calls (learner.h) on the plan backend and
 * communicator, for one GPU's samples of a batch.
 *
 * The cost of an iteration may depend on its draws: stage one makes two more passes of the flow
 * head for each sample with r < s.  In that case several iterations of all GPUs are rehearsed;
 * costs are their mean, and an iteration takes as long as its slowest GPU.  Otherwise the GPU with
 * the most samples stands for all.
 *
 *     hardware flops   what the operations execute (op_cost.h)
 *     model flops      what the mathematics of the step needs: each forward pass of the method
 *                      once, and the products that make the gradients of its backward passes
 *     MFU              model flops / (seconds x peak)
 *
 * So model flops leave out blocks that are recomputed (train.recompute) and the scores that
 * attention recomputes in its backward.  A pass through a trained network counts the usual 3 x
 * forward (less the input gradients of first layers, which nobody wants), a pass that only hands a
 * gradient through counts 2 x; guidance, finite differences, teacher and fake score add passes of 1
 * x. */
#ifndef TMD_PLAN_STEP_H
#define TMD_PLAN_STEP_H

#include "train/comm_plan.h"
#include "train/learner.h"

/* Where a run is planned for. */
struct PlanTarget {
    const struct Machine *machine;
    const struct Network *network;
    int n_gpus;
    struct PlanLink link; /* plan_link of these three */
    struct VideoShape video;
    enum Dtype act_dtype;
};

enum PlanPhase {
    PLAN_ZERO,     /* gradients to zero */
    PLAN_FORWARD,  /* all of a pass that no line below is */
    PLAN_AGAIN,    /* blocks computed again */
    PLAN_BACKWARD, /* operations whose names say so */
    PLAN_EXPOSED,  /* waiting for messages */
    PLAN_UPDATE,   /* norms, AdamW, EMA */
    PLAN_SLOWEST,  /* waiting for the GPU whose draws cost the most */
    PLAN_PHASES
};
const char *plan_phase_name(enum PlanPhase phase);

/* Of one iteration and one GPU. */
struct PlanStep {
    enum StepKind kind;
    double seconds, model_flops;
    struct OpTally ops[OP_COUNT], phases[PLAN_PHASES];
    struct PlanTraffic traffic;
};

/* sum += n * more, in every number. */
void plan_tally_add(struct OpTally *sum, struct OpTally more, int64_t n);

/* The GPUs can be divided as the configuration wants (rank_grid_init). */
struct PlanStep plan_step_make(const struct Config *config, const struct PlanTarget *target,
                               enum StepKind kind);

/* Of one GPU and a batch of train.micro_batch of KD's pairs, when the order of units is known. */
struct PlanPairs {
    double seconds;
    struct PlanTraffic traffic;
};
struct PlanPairs plan_pairs_make(const struct Config *config, const struct PlanTarget *target);

#endif
