/* The device side of a run: the networks, a micro-batch, the memory of a step, and what one iteration
 * does with them.  The trainer drives it with data, the benchmark with noise, and the plan with a
 * backend that only counts, so that all three are about the same work:
 *
 *     learner_begin(l, kind)                          gradients to zero
 *     learner_pass(l, kind, ...) once or more         forward, losses, backward; sums begin
 *     learner_sum(l, kind)                            gradients of the own share are those of all ranks
 *     learner_gradient_norm, learner_update           for each role that `kind` trains */
#ifndef TMD_LEARNER_H
#define TMD_LEARNER_H

#include "train/batch.h"
#include "train/step_run.h"
#include "train/unit_ring.h"
#include "train/unit_traffic.h"

struct Learner {
    const struct Config *config;
    const struct Parallel *parallel;
    struct Networks nets;
    struct UnitRing *ring;                 /* parallel.shard full, else NULL */
    struct PassWatch passes;               /* read by parallel.shard optimizer */
    struct UnitTraffic traffic[ROLE_COUNT]; /* of roles that are trained, or not whole */
    struct BatchBuffers batch;
    struct Arena arena;
    struct StepTapes *tapes;
    double *scratch; /* device: one double */
    double held_seconds; /* see learner_take_held */
};

/* A pass of an iteration. */
struct LearnerPass {
    struct BatchSamples samples;
    struct BatchSamples next; /* of the pass behind it, to be uploaded beside this one; none: n = 0 */
    bool last;                /* of the iteration */
    bool all_outputs;         /* step.h */
};

/* What a run has of each role: networks_plan, divided as parallel.shard wants. */
struct NetworksPlan learner_networks_plan(const struct Config *config, const struct RankGrid *grid);

/* Allocates everything; weights and moments are zero.  capacity: samples of a pass.  host_neg_text
 * [text_len, text_dim].  arena_bytes < 0: the arena only measures (plan backend). */
void learner_init(struct Learner *l, const struct Config *config, const struct Backend *be,
                  const struct Parallel *parallel, struct VideoShape video, int64_t capacity,
                  const float *host_neg_text, int64_t arena_bytes);
/* Harmless on zeros. */
void learner_free(struct Learner *l);
/* After weights were loaded: what products read follows the masters on every rank. */
void learner_loaded(struct Learner *l);
/* Device bytes of units that stand whole beside the shares. */
int64_t learner_unit_bytes(const struct Learner *l);

/* Whether a step of this kind trains the role, and this run has it. */
bool learner_trains(const struct Learner *l, enum StepKind kind, enum Role role);

void learner_begin(struct Learner *l, enum StepKind kind);
/* Before passes that are no iteration. */
void learner_aside(struct Learner *l);
/* Before each batch of KD's pairs, which all ask for the same units. */
void learner_begin_pairs(struct Learner *l);
/* Where weights are in shares: exchanges those of the main role with their average, if there is one, for
 * products to read.  Collective.  Of whole weights a sampler reads the average by itself. */
void learner_swap_average(struct Learner *l);
/* `in`, `result`: valid until the arena is released by the caller.  The returned context is that of
 * step_scalars and step_dump. */
struct StepContext learner_pass(struct Learner *l, enum StepKind kind, const struct LearnerPass *pass,
                                struct StepInputs *in, struct StepResult *result);
void learner_sum(struct Learner *l, enum StepKind kind);
/* The global norm of the role's gradient. */
double learner_gradient_norm(struct Learner *l, enum Role role);
/* AdamW and EMA, once downloads that have been started (ops_memory.h) are there; `step` counts the
 * role's updates from 1. */
void learner_update(struct Learner *l, enum Role role, int64_t iteration, int64_t step, double norm);
/* For how long updates have waited for such downloads since this was asked last. */
double learner_take_held(struct Learner *l);

#endif
