/* The device side of a run: the networks, a micro-batch, the memory of a step, and what one iteration
 * does with them.  The trainer drives it with data, the benchmark with noise, and the plan with a
 * backend that only counts, so that all three are about the same work:
 *
 *     learner_begin(l, kind)                          gradients to zero
 *     learner_pass(l, kind, ...) once or more         forward, losses, backward; sums begin
 *     learner_sum(l, kind)                            gradients are those of all ranks
 *     learner_gradient_norm, learner_update           for each role that `kind` trains */
#ifndef TMD_LEARNER_H
#define TMD_LEARNER_H

#include "train/batch.h"
#include "train/grad_sync.h"
#include "train/step_run.h"

/* The first sample of a rank's share of the global batch; the next rank's is where it ends. */
static inline int64_t batch_share_start(const struct Config *config, int64_t n_ranks, int64_t rank) {
    return config->train.global_batch * rank / n_ranks;
}

struct Learner {
    const struct Config *config;
    struct Comm *comm; /* for gradients, in the backend's memory */
    struct Networks nets;
    struct GradSync syncs[ROLE_COUNT];
    struct BatchBuffers batch;
    struct Arena arena;
    struct StepTapes *tapes;
    double *scratch; /* device: one double */
};

/* A pass of the iteration: samples [first, first + batch) of its global batch. */
struct LearnerPass {
    int64_t iteration, first, batch;
    bool last;               /* of the iteration */
    bool all_outputs;        /* step.h */
    const float *host_video; /* [batch, C, F, H, W] */
    const float *host_text;  /* [batch, text_len, text_dim] */
    const int64_t *host_samples; /* [batch], indices in the data */
};

/* Allocates everything; weights and moments are zero.  capacity: samples of a pass.  host_neg_text
 * [text_len, text_dim].  arena_bytes < 0: the arena only measures (plan backend). */
void learner_init(struct Learner *l, const struct Config *config, const struct Backend *be,
                  struct Comm *comm, struct VideoShape video, int64_t capacity,
                  const float *host_neg_text, int64_t arena_bytes);
/* Harmless on zeros. */
void learner_free(struct Learner *l);

/* Whether a step of this kind trains the role, and this run has it. */
bool learner_trains(const struct Learner *l, enum StepKind kind, enum Role role);

void learner_begin(struct Learner *l, enum StepKind kind);
/* `in`, `result`: valid until the arena is released by the caller.  The returned context is that of
 * step_scalars and step_dump. */
struct StepContext learner_pass(struct Learner *l, enum StepKind kind, const struct LearnerPass *pass,
                                struct StepInputs *in, struct StepResult *result);
void learner_sum(struct Learner *l, enum StepKind kind);
/* The global norm of the role's gradient. */
double learner_gradient_norm(struct Learner *l, enum Role role);
/* AdamW and EMA; `step` counts the role's updates from 1. */
void learner_update(struct Learner *l, enum Role role, int64_t iteration, int64_t step, double norm);

#endif
