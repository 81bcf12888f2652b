#include "train/batch.h"

#include "train/kd_pairs.h"

void batch_init(struct BatchBuffers *batch, const struct Networks *nets, int64_t capacity,
                const float *host_neg_text) {
    const struct Backend *be = nets->be;
    int64_t n_video = capacity * networks_latent_elems(nets) * (int64_t)sizeof(float);
    int64_t n_text = networks_text_elems(nets), n_row = n_text * (int64_t)sizeof(float);
    *batch = (struct BatchBuffers){.nets = nets, .capacity = capacity};
    float **videos[] = {&batch->x, &batch->x1, &batch->y1, &batch->eps};
    for (int i = 0; i < 4; i++) *videos[i] = be->memory_alloc(be, n_video);
    batch->text_f32 = be->memory_alloc(be, capacity * n_row);
    batch->text = be->memory_alloc(be, capacity * n_text * dtype_bytes(be->act_dtype));
    batch->neg_text = be->memory_alloc(be, capacity * n_text * dtype_bytes(be->act_dtype));
    for (int64_t b = 0; b < capacity; b++)
        be->upload(be, batch->text_f32 + b * n_text, host_neg_text, n_row);
    be->act_from_f32(be, batch->neg_text, batch->text_f32, capacity * n_text);
}

void batch_free(struct BatchBuffers *batch) {
    const struct Backend *be = batch->nets->be;
    void *buffers[] = {batch->x,        batch->x1,   batch->y1,      batch->eps,
                       batch->text_f32, batch->text, batch->neg_text};
    for (int i = 0; i < 7; i++) be->memory_free(be, buffers[i]);
}

void batch_fill(struct BatchBuffers *batch, enum StepKind kind, int64_t iteration, int64_t first,
                const float *host_video, const float *host_text, const int64_t *host_samples,
                struct StepInputs *in) {
    const struct Networks *nets = batch->nets;
    const struct Backend *be = nets->be;
    int64_t n_video = networks_latent_elems(nets), n_text = networks_text_elems(nets);
    uint64_t seed = (uint64_t)nets->config->train.seed;
    be->upload(be, batch->x, host_video, in->batch * n_video * (int64_t)sizeof(float));
    be->upload(be, batch->text_f32, host_text, in->batch * n_text * (int64_t)sizeof(float));
    be->act_from_f32(be, batch->text, batch->text_f32, in->batch * n_text);
    float *noises[] = {batch->x1, batch->y1, batch->eps};
    static const enum DrawPurpose purposes[] = {DRAW_X1, DRAW_Y1, DRAW_EPS};
    bool stage2 = kind == STEP_STUDENT || kind == STEP_CRITIC;
    int n_noises = kind == STEP_TEACHER ? 1 : stage2 ? 3 : 2;
    for (int i = 0; i < n_noises; i++)
        be->normal_fill(be, noises[i], seed, draw_stream(iteration, purposes[i]), first, in->batch,
                        n_video);
    for (int64_t b = 0; kind == STEP_KD && b < in->batch; b++)
        kd_pair_noise(nets, host_samples[b], batch->x1 + b * n_video);
    draw_times(nets->config, kind, iteration, first, in);
    in->x = batch->x;
    in->x1 = batch->x1;
    in->y1 = batch->y1;
    in->eps = batch->eps;
    in->text = batch->text;
    in->neg_text = batch->neg_text;
}
