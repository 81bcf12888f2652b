/* Batches of a dataset, read ahead by a thread.
 *
 * Iteration k of a run uses the samples at the positions k * global_batch .. (k + 1) * global_batch
 * - 1 of sample_order.h.  A rank takes n_local of them, from first_in_batch on.  Which samples form
 * a batch thus depends neither on the number of ranks nor on when the run was resumed.
 *
 * All buffers, n_prefetch + 1 batches, are allocated when the loader opens. */
#ifndef TMD_DATA_LOADER_H
#define TMD_DATA_LOADER_H

#include <stdint.h>

#include "data/dataset.h"
#include "error.h"

struct LoaderPlan {
    uint64_t seed;
    int64_t first_iteration;
    int64_t global_batch;   /* samples per iteration, all ranks together */
    int64_t first_in_batch; /* this rank's first, 0 .. global_batch - n_local */
    int64_t n_local;        /* this rank's samples per iteration */
    int64_t text_len;
    int64_t n_prefetch; /* batches read ahead, >= 1 */
};

struct Batch {
    int64_t iteration;
    const float *video;     /* [n_local, channels, frames, height, width] */
    const float *text;      /* [n_local, text_len, text_dim], padded with zeros */
    const int64_t *samples; /* [n_local] indices in the dataset */
};

struct Loader;

/* Starts reading.  `dataset` must outlive the loader; others may read it meanwhile.  NULL after an
 * error. */
struct Loader *loader_open(struct Dataset *dataset, const struct LoaderPlan *plan,
                           struct Error *err);
/* The next iteration's batch, valid until the next call; waits until it has been read.  An error of
 * the reading thread is returned in place of the batch that it prevented, and on every later call. */
bool loader_next(struct Loader *loader, struct Batch *batch, struct Error *err);
/* True: the batch that loader_next will give has been read, and is in *batch.  Never waits; the
 * batch that loader_next gave last stays valid. */
bool loader_peek(struct Loader *loader, struct Batch *batch);
/* Stops the thread, after the sample that it is reading at most.  Harmless on NULL. */
void loader_close(struct Loader *loader);

#endif
