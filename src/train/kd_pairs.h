/* The noise-data pairs of the KD warm-up (method.md, "KD warm-up"): the frozen teacher's own samples.
 *
 * Pair i starts from noise that is a function of (train.seed, i) and uses the prompt of sample
 * i mod N of the data.  The samples lie in <out>/pairs/part-*.h5, ordinary dataset files, one per rank
 * that made them; a later start with the same teacher, seed and sampler uses them again. */
#ifndef TMD_KD_PAIRS_H
#define TMD_KD_PAIRS_H

#include "data/dataset.h"
#include "train/comm.h"
#include "train/networks.h"

/* Fills the start noise of pair `pair`, one latent. */
void kd_pair_noise(const struct Networks *nets, int64_t pair, float *device);

/* Makes what is missing and opens the pairs as one dataset of kd.pairs samples.  Collective; false on the
 * rank that failed. */
bool kd_pairs_open(const struct Networks *nets, struct Dataset *prompts, struct Comm *comm,
                   struct Dataset **pairs, struct Error *err);

#endif
