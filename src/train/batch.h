/* The device side of a micro-batch: where data, text and noises lie, and how they get there.
 *
 * Samples arrive at two places in turn, so that those of the next pass travel beside the present
 * one. */
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
        float *video, *text;
    } arrivals[2];
    int turn;                     /* where samples arrive next */
    struct BatchSamples expected; /* what is on its way there; nothing: n = 0 */
    float *x1, *y1, *eps;
    Act *text;     /* of the samples, dropped or not, as the stage wants it */
    Act *neg_text; /* the same rows for every sample */
};

/* neg_text: host [text_len, text_dim]. */
void batch_init(struct BatchBuffers *batch, const struct Networks *nets, int64_t capacity,
                const float *host_neg_text);
void batch_free(struct BatchBuffers *batch);

/* Begins to upload samples beside what goes on, for the next batch_fill; the host memory has been
 * read when it returns. */
void batch_expect(struct BatchBuffers *batch, const struct BatchSamples *samples);

/* Takes samples, which are uploaded now if they were not expected, draws their noises and times,
 * and fills `in`, valid until the next call.  A KD step's outer noise is the one its sample was
 * made from (kd_pairs.h). */
void batch_fill(struct BatchBuffers *batch, enum StepKind kind, const struct BatchSamples *samples,
                struct StepInputs *in);

#endif
