/* The device side of a micro-batch: where data, text and noises lie, and how they get there. */
#ifndef TMD_BATCH_H
#define TMD_BATCH_H

#include "train/draws.h"

struct BatchBuffers {
    const struct Networks *nets;
    int64_t capacity; /* samples */
    float *x, *x1, *y1, *eps;
    float *text_f32;  /* staging */
    Act *text;        /* of the samples, dropped or not, as the stage wants it */
    Act *neg_text;    /* the same rows for every sample */
};

/* neg_text: host [text_len, text_dim]. */
void batch_init(struct BatchBuffers *batch, const struct Networks *nets, int64_t capacity,
                const float *host_neg_text);
void batch_free(struct BatchBuffers *batch);

/* Uploads samples [first, first + in->batch) of the iteration's global batch from host memory, draws
 * their noises and times, and fills `in`.  video, text, samples (indices in the data): the first of
 * these samples.  A KD step's outer noise is the one its sample was made from (kd_pairs.h). */
void batch_fill(struct BatchBuffers *batch, enum StepKind kind, int64_t iteration, int64_t first,
                const float *host_video, const float *host_text, const int64_t *host_samples,
                struct StepInputs *in);

#endif
