/* What a run's samples look like while it trains: at multiples of preview.every, and at the end,
 * the network that the run trains samples fixed prompts from fixed noise (sampler.seed) into
 * <out>/previews/step-00000100.png and .gif (sampling.h has the samplers).  It uses the averaged
 * weights, if the run keeps an average.
 *
 * Rank 0 writes them.  The memory is that of a step, which is free between two iterations. */
#ifndef TMD_PREVIEW_H
#define TMD_PREVIEW_H

#include "train/prompt_set.h"
#include "train/rank_grid.h"
#include "train/sampling.h"

struct Preview {
    struct DatasetInfo info; /* of the data that the prompts are from; its strings are left out */
    struct PromptSet prompts;
    float *clips; /* host [prompts.n, C, F, H, W] */
    char *folder;
};

/* Bytes of arena that a preview takes; 0 with previews off.  The networks must lie on the plan
 * backend. */
int64_t preview_arena_bytes(const struct Networks *planned);

/* Whether a rank takes part in previews.  If weights are in shares, all do, because rank 0 needs
 * theirs; otherwise the ranks that share rank 0's tokens. */
bool preview_has_part(const struct RankGrid *grid);

/* Reads the prompts: the configured ones, or the first of the data.  `writes`: this rank makes the
 * folder, too.  Does nothing with previews off.  preview_close is harmless on zeros and after an
 * error. */
bool preview_open(struct Preview *preview, const struct Config *config, struct Dataset *dataset,
                  bool writes, struct Error *err);
void preview_close(struct Preview *preview);

/* Whether a preview is wanted once `iteration` iterations are done. */
bool preview_due(const struct Config *config, int64_t iteration);
/* Samples, and draws the result; with `write` false this rank only helps to sample. */
bool preview_write(const struct Preview *preview, const struct Networks *nets, struct Arena *arena,
                   int64_t iteration, bool write, struct Error *err);

#endif
