/* The device side of a micro-batch: where data, text and noises lie, and how they get there.
 *
 * Data and text are uploaded into two buffers in turn, so that the next pass's samples can travel
 * to the device while the present pass computes. */
#ifndef TMD_BATCH_H
#define TMD_BATCH_H

#include "train/draws.h"

/* Samples [first, first + n) of an iteration's global batch, in host memory. */
struct BatchSamples {
    int64_t iteration, first, n;
    const float *video;     /* [n, C, F, H, W] */
    const float *text;      /* [n, text_len, text_dim] */
    const int64_t *indices; /* [n], in the data */
};

struct BatchBuffers {
    const struct Networks *nets;
    int64_t capacity; /* samples */
    struct BatchArrival {
        float *video; /* [capacity, C, F, H, W] */
        float *text;  /* [capacity, text_len, text_dim] */
    } arrivals[2];
    int turn;                      /* which of them is filled next */
    struct BatchSamples uploading; /* what is on its way there; n = 0: nothing */
    float *x1, *y1, *eps;          /* noises [capacity, C, F, H, W] */
    Act *text;                     /* [capacity, text_len, text_dim] */
    Act *neg_text;                 /* the same, the negative prompt for every sample */
};

/* host_neg_text [text_len, text_dim]. */
void batch_init(struct BatchBuffers *batch, const struct Networks *nets, int64_t capacity,
                const float *host_neg_text);
void batch_free(struct BatchBuffers *batch);

/* Begins to upload the samples of the next batch_fill while the device computes.  The host memory
 * may be reused when it returns. */
void batch_upload_start(struct BatchBuffers *batch, const struct BatchSamples *samples);

/* Fills `in` with these samples, their noises and times, valid until the next call.  Uploads the
 * samples now unless batch_upload_start was called for them.  A KD step's outer noise is the one
 * from which the teacher made the sample (kd_pairs.h). */
void batch_fill(struct BatchBuffers *batch, enum StepKind kind, const struct BatchSamples *samples,
                struct StepInputs *in);

#endif
