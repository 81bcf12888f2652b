/* Thin wrappers of backend operations that know the run's sizes. */
#include "train/step_common.h"

#include <stdlib.h>

#include "error.h"

struct StepTapes *step_tapes_create(void) {
    return xcalloc(sizeof(struct StepTapes));
}

void step_tapes_destroy(struct StepTapes *tapes) {
    free(tapes);
}

double step_replicated_weight(const struct StepContext *ctx) {
    return ctx->sample_weight / networks_parts(ctx->nets);
}

float *step_latents(const struct StepContext *ctx, int64_t batch) {
    return arena_f32(ctx->arena, batch * networks_latent_elems(ctx->nets));
}

void step_combine(const struct StepContext *ctx, int64_t batch, float *out, int n_terms,
                  const struct Term *terms) {
    double coef[COMBINE_MAX_TERMS * STUDENT_MAX_BATCH];
    const float *in[COMBINE_MAX_TERMS];
    for (int k = 0; k < n_terms; k++) {
        in[k] = terms[k].in;
        for (int64_t b = 0; b < batch; b++)
            coef[k * batch + b] = terms[k].coef ? terms[k].coef[b] : terms[k].same;
    }
    ctx->nets->be->combine(ctx->nets->be, out, n_terms, in, coef, batch,
                           networks_latent_elems(ctx->nets));
}

void step_noise_to(const struct StepContext *ctx, int64_t batch, float *out, const float *data,
                   const float *noise, const double *t) {
    double keep[STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < batch; b++) keep[b] = 1.0 - t[b];
    step_combine(ctx, batch, out, 2, (struct Term[]){{data, keep, 0.0}, {noise, t, 0.0}});
}

const Act *step_text(const struct StepContext *ctx, const struct StepInputs *in) {
    const struct Backend *be = ctx->nets->be;
    int64_t n = networks_text_elems(ctx->nets);
    Act *text = arena_act(ctx->arena, in->batch * n);
    for (int64_t b = 0; b < in->batch; b++)
        be->copy(be, act_at(be, text, b * n), act_at(be, in->drop[b] ? in->neg_text : in->text, b * n),
                 n * dtype_bytes(be->act_dtype));
    return text;
}

struct GeneratorInputs step_generator_inputs(const struct StepContext *ctx,
                                             const struct StepInputs *in) {
    float *x_t = step_latents(ctx, in->batch);
    step_noise_to(ctx, in->batch, x_t, in->x, in->x1, in->t_student);
    return (struct GeneratorInputs){
        .wan = {.batch = in->batch, .x = x_t, .host_t = in->t_student, .text = in->text},
        .x1 = in->x1,
        .y1 = in->y1};
}
