/* The device side of a run: the networks, a micro-batch, the memory of a step, and what one iteration
 * does with them.  The trainer drives it with data, the benchmark with noise, and the plan with a
 * backend that only counts, so that all three do the same work.  One iteration is
 *
 *     learner_begin(l, kind)                       gradients become zero
 *     learner_pass(l, kind, ...), once or more     forward, losses, backward; sums over ranks begin
 *     learner_sum(l, kind)                         the share's gradients are those of all ranks
 *     learner_gradient_norm, learner_update        for each role that `kind` trains */
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
    struct UnitRing *ring;   /* parallel.shard full, else NULL */
    struct PassWatch passes; /* parallel.shard optimizer: see unit_traffic.h */
    struct UnitTraffic traffic[ROLE_COUNT]; /* of roles that are trained, or held in shares */
    struct BatchBuffers batch;
    struct Arena arena;
    struct StepTapes *tapes;
    double *scratch; /* device: one double */
    double copy_wait_seconds; /* see learner_take_copy_wait */
};

/* A pass: one micro-batch, forward and backward. */
struct LearnerPass {
    struct BatchSamples samples;
    struct BatchSamples next; /* of the pass after it, to be uploaded meanwhile; n = 0: not known yet */
    bool last;                /* of the iteration */
    bool all_outputs;         /* step.h */
};

/* What this rank has of each role: networks_plan, in shares if parallel.shard says so. */
struct NetworksPlan learner_networks_plan(const struct Config *config, const struct RankGrid *grid);

/* Allocates everything; weights and moments are zero.  capacity: samples of a pass.  host_neg_text
 * [text_len, text_dim].  arena_bytes < 0: the arena only measures (plan backend). */
void learner_init(struct Learner *l, const struct Config *config, const struct Backend *be,
                  const struct Parallel *parallel, struct VideoShape video, int64_t capacity,
                  const float *host_neg_text, int64_t arena_bytes);
/* Harmless on zeros. */
void learner_free(struct Learner *l);
/* To be called after weights were loaded: brings what matrix products read up to date on all ranks. */
void learner_weights_loaded(struct Learner *l);
/* Device bytes of whole units that are held beside the shares. */
int64_t learner_unit_bytes(const struct Learner *l);

/* Whether a step of this kind trains the role, and this run has it. */
bool learner_trains(const struct Learner *l, enum StepKind kind, enum Role role);

void learner_begin(struct Learner *l, enum StepKind kind);
/* Before passes outside an iteration (previews, dumps): the units that they ask for say nothing
 * about the order in which the next iteration will ask (unit_ring.h). */
void learner_begin_outside(struct Learner *l);
/* Before each batch of KD's pairs, which all ask for units in the same order. */
void learner_begin_pairs(struct Learner *l);
/* Before and after a preview: where weights are in shares, exchanges the main role's weights with
 * their average, if there is one.  Collective.  For whole weights the sampler has a view of the
 * average (weights_average_view), and nothing happens here. */
void learner_swap_average(struct Learner *l);
/* Fills `in` and `result`, valid until the caller releases the arena.  Returns the context, for
 * step_scalars and step_dump. */
struct StepContext learner_pass(struct Learner *l, enum StepKind kind, const struct LearnerPass *pass,
                                struct StepInputs *in, struct StepResult *result);
void learner_sum(struct Learner *l, enum StepKind kind);
/* The norm of the role's whole gradient, from all ranks' shares. */
double learner_gradient_norm(struct Learner *l, enum Role role);
/* Clipping, AdamW and EMA.  A checkpoint's copy of the weights may be under way (download_start of
 * ops_memory.h): the update waits for its end.  `step` counts the role's updates from 1; `norm` is
 * that of learner_gradient_norm. */
void learner_update(struct Learner *l, enum Role role, int64_t iteration, int64_t step, double norm);
/* Seconds that updates have waited for such copies since this was asked last. */
double learner_take_copy_wait(struct Learner *l);

#endif
