/* Flow matching from scratch, and the KD warm-up: the two stages whose loss is a plain square. */
#include "train/step_common.h"

/* squares[b] = |a - b|^2 and gradient = weight 2 (a - b) / n of the mean over n elements. */
static void square_loss(const struct StepContext *ctx, int64_t batch, double *squares,
                        float *gradient, const float *a, const float *b) {
    const struct Backend *be = ctx->nets->be;
    int64_t n = networks_latent_elems(ctx->nets);
    step_combine(ctx, batch, gradient, 2, (struct Term[]){{a, NULL, 1.0}, {b, NULL, -1.0}});
    be->squares_sum(be, squares, gradient, batch, n);
    double factor = 2.0 * ctx->sample_weight / (double)n;
    step_combine(ctx, batch, gradient, 1, (struct Term[]){{gradient, NULL, factor}});
}

void step_teacher(const struct StepContext *ctx, const struct StepInputs *in,
                  struct FlowMatchingOutputs *out) {
    struct Wan wan = networks_wan(ctx->nets, ROLE_TEACHER, VIEW_TRAINED);
    int64_t batch = in->batch;
    out->squares = arena_f64(ctx->arena, batch);
    float *x_t = step_latents(ctx, batch), *y = step_latents(ctx, batch);
    float *v = step_latents(ctx, batch), *dv = step_latents(ctx, batch);
    step_noise_to(ctx, batch, x_t, in->x, in->x1, in->t);
    step_combine(ctx, batch, y, 2, (struct Term[]){{in->x1, NULL, 1.0}, {in->x, NULL, -1.0}});

    struct WanInputs inputs = {
        .batch = batch, .x = x_t, .host_t = in->t, .text = step_text(ctx, in)};
    wan_forward(&wan, inputs, v, NULL, networks_keep(ctx->nets), ctx->arena, &ctx->tapes->teacher);
    square_loss(ctx, batch, out->squares, dv, v, y);
    wan_backward(&wan, NULL, dv, NULL, &ctx->tapes->teacher, ctx->last, ctx->arena);
}

void step_kd(const struct StepContext *ctx, const struct StepInputs *in, struct KdOutputs *out) {
    struct Student student = networks_student(ctx->nets, VIEW_TRAINED);
    int64_t batch = in->batch;
    out->squares = arena_f64(ctx->arena, batch);
    out->x_hat = step_latents(ctx, batch);
    float *dx_hat = step_latents(ctx, batch);
    struct GeneratorInputs inputs = step_generator_inputs(ctx, in);
    inputs.wan.x = in->x1; /* one step from pure noise: the first point of a sampler's path */
    generator_forward(&student, inputs, out->x_hat, networks_keep(ctx->nets), ctx->arena,
                      &ctx->tapes->generator);
    square_loss(ctx, batch, out->squares, dx_hat, out->x_hat, in->x);
    generator_backward(&student, dx_hat, &ctx->tapes->generator, ctx->last, ctx->arena);
}
