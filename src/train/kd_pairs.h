/* The noise-data pairs of the KD warm-up (method.md, "KD warm-up"): the frozen teacher's own samples.
 *
 * Pair i starts from noise that is a function of (train.seed, i) and uses the prompt of sample
 * i mod N of the data.  The samples lie in <out>/pairs/part-*.h5, ordinary dataset files, one per rank
 * that made them; a later start with the same teacher, seed and sampler uses them again. */
#ifndef TMD_KD_PAIRS_H
#define TMD_KD_PAIRS_H

#include "data/dataset.h"
#include "train/comm.h"
#include "train/sampling.h"
#include "train/watchdog.h"

/* Fills the start noise of pair `pair`, one latent. */
void kd_pair_noise(const struct Networks *nets, int64_t pair, float *device);

/* The teacher as the pairs need it; its start noise is kd_pair_noise. */
struct Sampler kd_pair_sampler(const struct Networks *nets);

/* Makes this rank's part, unless it is there already; tells the watchdog of each batch. */
bool kd_pairs_make(const struct Networks *nets, struct Dataset *prompts, const struct Comm *comm,
                   struct Watchdog *watchdog, struct Error *err);

/* The parts of all ranks as one dataset of kd.pairs samples, or NULL.  Not before every rank has made
 * its own. */
struct Dataset *kd_pairs_open(const struct Config *config, const struct Comm *comm, struct Error *err);

#endif
