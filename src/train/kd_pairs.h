/* The pairs that the KD warm-up learns from: a noise, and the frozen teacher's sample from it.
 *
 * Pair i starts from noise that is a function of (train.seed, i) and uses the prompt of sample
 * i mod N of the data.  The samples lie in <out>/pairs/part-*.h5, ordinary dataset files, one per rank
 * that made them; a later start with the same teacher, seed and sampler uses them again.
 *
 * A rank samples its pairs alone, train.micro_batch at a time, in the memory of the step.  But ranks go
 * from batch to batch together: they may hold the teacher in shares, and where one fails all end. */
#ifndef TMD_KD_PAIRS_H
#define TMD_KD_PAIRS_H

#include "data/dataset.h"
#include "train/learner.h"
#include "train/sampling.h"
#include "train/watchdog.h"

/* Fills the start noise of pair `pair`, one latent. */
void kd_pair_noise(const struct Networks *nets, int64_t pair, float *device);

/* The teacher as the pairs need it; its start noise is kd_pair_noise. */
struct Sampler kd_pair_sampler(const struct Networks *nets);

/* Bytes of arena that a batch takes.  The networks lie on a planning backend. */
int64_t kd_pairs_arena_bytes(const struct Networks *planned);

/* Makes this rank's part, unless it is there already; tells the watchdog of each batch.  Collective.
 * True, with the part not made, where another rank has failed. */
bool kd_pairs_make(struct Learner *learner, struct Dataset *prompts, struct Comm *comm,
                   struct Watchdog *watchdog, struct Error *err);

/* The parts of all ranks as one dataset of kd.pairs samples, or NULL.  Not before every rank has made
 * its own. */
struct Dataset *kd_pairs_open(const struct Config *config, const struct Comm *comm, struct Error *err);

#endif
