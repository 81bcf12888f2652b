/* What the tests of the plan share: a machine on which everything takes whole seconds, and small
 * configurations of all stages. */
#ifndef TMD_PLAN_FIXTURE_H
#define TMD_PLAN_FIXTURE_H

#include "train/plan_run.h"

extern const struct Machine simple_machine;

/* n_gpus of it for a video. */
struct PlanTarget simple_target(int n_gpus, struct VideoShape video, enum Dtype act_dtype);

/* Applies overrides, the last followed by NULL. */
void override_all(struct Config *config, const char *const *overrides);

/* Batches of nine on three ranks: two passes each, the second one of a single sample. */
enum { SMALL_RANKS = 3, SMALL_BATCH = 9, SMALL_MICRO_BATCH = 2, SMALL_CONFIGS = 11 };
extern const struct VideoShape small_video;

/* Configuration i of SMALL_CONFIGS. */
void small_config(struct Config *config, int i);

/* n values within +-0.1; the caller frees them. */
float *small_floats(int64_t n, uint64_t seed);
/* Sets every role to such values, by its number: fresh networks' outputs are all zero, and with them many
 * gradients.  The same on every rank, whatever its share. */
void small_weights(struct Networks *nets);

/* How many kinds of steps its stage has. */
int n_kinds(const struct Config *config);

/* Whether some samples cost more than others. */
bool draws_cost(const struct Config *config);

#endif
