/* Buffers are allocated once for the largest micro-batch; a smaller one uses the first samples of
 * each. */
#include "train/batch.h"

#include "train/kd_pairs.h"

void batch_init(struct BatchBuffers *batch, const struct Networks *nets, int64_t capacity,
                const float *host_neg_text) {
    const struct Backend *be = nets->be;
    int64_t n_video = capacity * networks_latent_elems(nets) * (int64_t)sizeof(float);
    int64_t n_text = networks_text_elems(nets), n_row = n_text * (int64_t)sizeof(float);
    *batch = (struct BatchBuffers){.nets = nets, .capacity = capacity};
    float **videos[] = {&batch->arrivals[0].video, &batch->arrivals[1].video, &batch->x1,
                        &batch->y1, &batch->eps};
    for (int i = 0; i < 5; i++) *videos[i] = be->memory_alloc(be, n_video);
    for (int i = 0; i < 2; i++) batch->arrivals[i].text = be->memory_alloc(be, capacity * n_row);
    batch->text = be->memory_alloc(be, capacity * n_text * dtype_bytes(be->act_dtype));
    batch->neg_text = be->memory_alloc(be, capacity * n_text * dtype_bytes(be->act_dtype));
    float *staging = batch->arrivals[0].text;
    for (int64_t b = 0; b < capacity; b++)
        be->upload(be, staging + b * n_text, host_neg_text, n_row);
    be->act_from_f32(be, batch->neg_text, staging, capacity * n_text);
    be->upload_wait(be); /* arrivals[0].text was the staging buffer: done before samples come there */
}

void batch_free(struct BatchBuffers *batch) {
    const struct Backend *be = batch->nets->be;
    const struct BatchArrival *arrivals = batch->arrivals;
    void *buffers[] = {arrivals[0].video, arrivals[1].video, arrivals[0].text,
                       arrivals[1].text,  batch->x1,         batch->y1,
                       batch->eps,        batch->text,       batch->neg_text};
    for (int i = 0; i < 9; i++) be->memory_free(be, buffers[i]);
}

void batch_upload_start(struct BatchBuffers *batch, const struct BatchSamples *samples) {
    const struct Backend *be = batch->nets->be;
    const struct BatchArrival *arrival = &batch->arrivals[batch->turn];
    int64_t n_video = samples->n * networks_latent_elems(batch->nets);
    int64_t n_text = samples->n * networks_text_elems(batch->nets);
    be->upload_start(be, arrival->video, samples->video, n_video * (int64_t)sizeof(float));
    be->upload_start(be, arrival->text, samples->text, n_text * (int64_t)sizeof(float));
    batch->uploading = *samples;
}

static bool is_uploading(const struct BatchBuffers *batch, const struct BatchSamples *samples) {
    const struct BatchSamples *e = &batch->uploading;
    return e->iteration == samples->iteration && e->first == samples->first && e->n == samples->n;
}

/* The buffer in which the samples have arrived; the next ones go to the other. */
static const struct BatchArrival *arrive(struct BatchBuffers *batch,
                                         const struct BatchSamples *samples) {
    const struct BatchArrival *arrival = &batch->arrivals[batch->turn];
    if (!is_uploading(batch, samples)) batch_upload_start(batch, samples);
    batch->nets->be->upload_wait(batch->nets->be);
    batch->turn = !batch->turn;
    batch->uploading.n = 0;
    return arrival;
}

static void draw_noises(struct BatchBuffers *batch, enum StepKind kind,
                        const struct BatchSamples *samples) {
    const struct Networks *nets = batch->nets;
    int64_t n_video = networks_latent_elems(nets);
    uint64_t seed = (uint64_t)nets->config->train.seed;
    float *noises[] = {batch->x1, batch->y1, batch->eps};
    static const enum DrawPurpose purposes[] = {DRAW_X1, DRAW_Y1, DRAW_EPS};
    bool stage2 = kind == STEP_STUDENT || kind == STEP_CRITIC;
    int n_noises = kind == STEP_TEACHER ? 1 : stage2 ? 3 : 2;
    for (int i = 0; i < n_noises; i++)
        nets->be->normal_fill(nets->be, noises[i], seed,
                              draw_stream(samples->iteration, purposes[i]), samples->first,
                              samples->n, n_video);
    for (int64_t b = 0; kind == STEP_KD && b < samples->n; b++)
        kd_pair_noise(nets, samples->indices[b], batch->x1 + b * n_video);
}

void batch_fill(struct BatchBuffers *batch, enum StepKind kind, const struct BatchSamples *samples,
                struct StepInputs *in) {
    const struct Networks *nets = batch->nets;
    const struct BatchArrival *arrival = arrive(batch, samples);
    nets->be->act_from_f32(nets->be, batch->text, arrival->text,
                           samples->n * networks_text_elems(nets));
    draw_noises(batch, kind, samples);
    *in = (struct StepInputs){.batch = samples->n,
                              .x = arrival->video,
                              .x1 = batch->x1,
                              .y1 = batch->y1,
                              .eps = batch->eps,
                              .text = batch->text,
                              .neg_text = batch->neg_text};
    draw_times(nets->config, kind, samples->iteration, samples->first, in);
}
