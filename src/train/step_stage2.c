/* Stage 2: DMD2-v with the flow head rolled out (TMD, arXiv 2601.09881;
 * DMD2, Yin et al., arXiv 2405.14867).
 *
 * Student:  x_hat = g(x_t, t; y1),  x_hat_t = (1 - t) x_hat + t eps,  denoised g(x_t) = x_t - t v
 *     VSD   gradient G / batch on x_hat, G = (g_fake - g_teacher) / norm per sample, from the
 *           velocities (vsd_direction of ops_loss.h)
 *     GAN   gan_weight mean softplus(-D(taps of the teacher at x_hat_t)), back through the teacher
 * Critic:   fake score |x_hat_t - t v_fake - x_hat|^2, mean over elements; discriminator
 *           softplus(D(fake)) + softplus(-D(real)), real = data with the same t and eps. */
#include "train/step_common.h"

/* Buffers for what the teacher's tapped blocks hand out. */
static struct Taps taps_alloc(const struct StepContext *ctx, int64_t batch) {
    const struct Config *config = ctx->nets->config;
    int64_t channels = discriminator_tap_channels(&config->model);
    struct Taps taps = {.blocks = &config->discriminator.features};
    for (int k = 0; k < taps.blocks->n; k++)
        taps.videos[k] =
            arena_act(ctx->arena, batch * video_elems(ctx->nets->geometry.video, channels));
    return taps;
}

static void discriminate(const struct StepContext *ctx, const struct Discriminator *d,
                         const struct Taps *taps, int64_t batch, float *logits) {
    discriminator_forward(d, (const Act *const *)taps->videos, batch, ctx->nets->geometry.video,
                          logits, ctx->arena, &ctx->tapes->discriminator);
}

/* What student and critic updates both begin with. */
static void generate_and_renoise(const struct StepContext *ctx, const struct StepInputs *in,
                                 enum View view, enum Keep keep, float *x_hat, float *x_hat_t) {
    struct Student student = networks_student(ctx->nets, view);
    struct GeneratorInputs inputs = step_generator_inputs(ctx, in);
    if (!ctx->nets->config->stage2.rollout && ctx->nets->config->student.head_blocks) {
        float *y_s = step_latents(ctx, in->batch); /* (1 - s)(x1 - x) + s y1 */
        double minus[STUDENT_MAX_BATCH], rest[STUDENT_MAX_BATCH];
        for (int64_t b = 0; b < in->batch; b++) minus[b] = -(rest[b] = 1.0 - in->s[b]);
        step_combine(ctx, in->batch, y_s, 3,
                     (struct Term[]){{in->x1, rest, 0.0}, {in->x, minus, 0.0}, {in->y1, in->s, 0.0}});
        inputs.y_s = y_s;
        inputs.host_s = in->s;
        inputs.host_r = in->r;
    }
    generator_forward(&student, inputs, x_hat, keep, ctx->arena, &ctx->tapes->generator);
    step_noise_to(ctx, in->batch, x_hat_t, x_hat, in->eps, in->t);
}

/* g = x_t - t v */
static void denoised(const struct StepContext *ctx, int64_t batch, float *g, const float *x_t,
                     const float *v, const double *t) {
    double minus_t[STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < batch; b++) minus_t[b] = -t[b];
    step_combine(ctx, batch, g, 2, (struct Term[]){{x_t, NULL, 1.0}, {v, minus_t, 0.0}});
}

/* v_teacher = v_neg + guidance (v_cond - v_neg), in whose place v_cond is given; and v_fake, in
 * whose place v_neg stands before. */
static void score_pair(const struct StepContext *ctx, const struct StepInputs *in,
                       const float *x_hat_t, float *v_teacher, float *v_fake) {
    struct Wan teacher = networks_wan(ctx->nets, ROLE_TEACHER, VIEW_FROZEN);
    struct Wan fake = networks_wan(ctx->nets, ROLE_FAKE, VIEW_FROZEN);
    double guidance = ctx->nets->config->stage2.guidance;
    struct WanInputs inputs = {
        .batch = in->batch, .x = x_hat_t, .host_t = in->t, .text = in->neg_text};
    if (guidance != 1.0) {
        float *v_neg = v_fake;
        wan_forward(&teacher, inputs, v_neg, NULL, KEEP_NOTHING, ctx->arena, &ctx->tapes->other);
        step_combine(ctx, in->batch, v_teacher, 2,
                     (struct Term[]){{v_teacher, NULL, guidance}, {v_neg, NULL, 1.0 - guidance}});
    }
    inputs.text = in->text;
    wan_forward(&fake, inputs, v_fake, NULL, KEEP_NOTHING, ctx->arena, &ctx->tapes->other);
}

/* gan[b], and dx_hat += gan_weight times its gradient, through discriminator and frozen teacher.  The
 * taps turn into their gradients. */
static void gan_gradient(const struct StepContext *ctx, const struct StepInputs *in,
                         const struct Taps *taps, double *gan, float *dx_hat) {
    const struct Backend *be = ctx->nets->be;
    struct Wan teacher = networks_wan(ctx->nets, ROLE_TEACHER, VIEW_FROZEN);
    struct Discriminator d = networks_discriminator(ctx->nets, VIEW_FROZEN);
    double weight = ctx->nets->config->stage2.gan_weight * ctx->sample_weight;
    double keep[STUDENT_MAX_BATCH];
    int64_t mark = arena_mark(ctx->arena), n_logits = in->batch * taps->blocks->n;
    float *dx_hat_t = step_latents(ctx, in->batch);
    int64_t judged = arena_mark(ctx->arena); /* what follows, the teacher's backward does not need */
    float *logits = arena_f32(ctx->arena, n_logits), *dlogits = arena_f32(ctx->arena, n_logits);
    discriminate(ctx, &d, taps, in->batch, logits);
    be->softplus_loss(be, gan, dlogits, logits, -1.0, weight, in->batch, taps->blocks->n);
    discriminator_backward(&d, dlogits, &ctx->tapes->discriminator, taps->videos, false, ctx->arena);
    arena_release(ctx->arena, judged);
    wan_backward(&teacher, dx_hat_t, NULL, taps, &ctx->tapes->teacher, false, ctx->arena);
    for (int64_t b = 0; b < in->batch; b++) keep[b] = 1.0 - in->t[b];
    step_combine(ctx, in->batch, dx_hat, 2,
                 (struct Term[]){{dx_hat, NULL, 1.0}, {dx_hat_t, keep, 0.0}});
    arena_release(ctx->arena, mark);
}

void step_student(const struct StepContext *ctx, const struct StepInputs *in,
                  struct StudentOutputs *out) {
    const struct Config *config = ctx->nets->config;
    const struct Backend *be = ctx->nets->be;
    struct Student student = networks_student(ctx->nets, VIEW_TRAINED);
    struct Wan teacher = networks_wan(ctx->nets, ROLE_TEACHER, VIEW_FROZEN);
    int64_t batch = in->batch;
    bool adversarial = ctx->nets->plan.present[ROLE_DISCRIMINATOR];
    float **videos[] = {&out->x_hat, &out->g_fake, &out->g_teacher};
    for (int i = 0; i < 3; i++) *videos[i] = step_latents(ctx, batch);
    float *v_fake = out->g_fake, *v_teacher = out->g_teacher; /* until the loss has read them */
    out->vsd = arena_f64(ctx->arena, batch);
    out->gan = arena_f64(ctx->arena, batch);
    float *x_hat_t = step_latents(ctx, batch), *dx_hat = step_latents(ctx, batch);
    generate_and_renoise(ctx, in, VIEW_TRAINED, networks_keep(ctx->nets), out->x_hat, x_hat_t);

    int64_t mark = arena_mark(ctx->arena); /* beyond it: what only the losses need */
    struct Taps taps = {0};
    if (adversarial) taps = taps_alloc(ctx, batch);
    struct WanInputs inputs = {.batch = batch, .x = x_hat_t, .host_t = in->t, .text = in->text};
    wan_forward(&teacher, inputs, v_teacher, adversarial ? &taps : NULL,
                adversarial ? networks_keep(ctx->nets) : KEEP_NOTHING, ctx->arena,
                &ctx->tapes->teacher);
    score_pair(ctx, in, x_hat_t, v_teacher, v_fake);
    be->vsd_direction(be, out->vsd, dx_hat, out->x_hat, in->eps, v_fake, v_teacher, in->t,
                      config->stage2.vsd_norm, batch, networks_latent_elems(ctx->nets));
    denoised(ctx, batch, out->g_fake, x_hat_t, v_fake, in->t);
    denoised(ctx, batch, out->g_teacher, x_hat_t, v_teacher, in->t);
    step_combine(ctx, batch, dx_hat, 1, (struct Term[]){{dx_hat, NULL, ctx->sample_weight}});
    if (adversarial)
        gan_gradient(ctx, in, &taps, out->gan, dx_hat);
    else
        be->zero(be, out->gan, batch * (int64_t)sizeof(double));
    arena_release(ctx->arena, mark);
    generator_backward(&student, dx_hat, &ctx->tapes->generator, ctx->last, ctx->arena);
}

/* The fake score learns to denoise what the student makes.  The residual x_hat_t - t v_fake - x_hat
 * is t (eps - x_hat - v_fake), which does not cancel near t = 0. */
static void fake_score_update(const struct StepContext *ctx, const struct StepInputs *in,
                              const float *x_hat_t, struct CriticOutputs *out) {
    const struct Backend *be = ctx->nets->be;
    struct Wan fake = networks_wan(ctx->nets, ROLE_FAKE, VIEW_TRAINED);
    int64_t mark = arena_mark(ctx->arena), n = networks_latent_elems(ctx->nets);
    float *v = step_latents(ctx, in->batch), *residual = step_latents(ctx, in->batch);
    struct WanInputs inputs = {
        .batch = in->batch, .x = x_hat_t, .host_t = in->t, .text = in->text};
    wan_forward(&fake, inputs, v, NULL, networks_keep(ctx->nets), ctx->arena, &ctx->tapes->other);
    double minus_t[STUDENT_MAX_BATCH], factor[STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < in->batch; b++) {
        minus_t[b] = -in->t[b];
        factor[b] = 2.0 * minus_t[b] * ctx->sample_weight / (double)n;
    }
    step_combine(ctx, in->batch, residual, 3,
                 (struct Term[]){
                     {in->eps, in->t, 0.0}, {out->x_hat, minus_t, 0.0}, {v, minus_t, 0.0}});
    be->squares_sum(be, out->squares, residual, in->batch, n);
    step_combine(ctx, in->batch, residual, 1, (struct Term[]){{residual, factor, 0.0}});
    wan_backward(&fake, NULL, residual, NULL, &ctx->tapes->other, ctx->last, ctx->arena);
    arena_release(ctx->arena, mark);
}

/* loss[b] = softplus(sign D(x_t)) and its gradient in the discriminator. */
static void discriminator_update(const struct StepContext *ctx, const struct StepInputs *in,
                                 const float *x_t, double sign, bool last, double *loss) {
    const struct Backend *be = ctx->nets->be;
    struct Wan teacher = networks_wan(ctx->nets, ROLE_TEACHER, VIEW_FROZEN);
    struct Discriminator d = networks_discriminator(ctx->nets, VIEW_TRAINED);
    int64_t mark = arena_mark(ctx->arena);
    struct Taps taps = taps_alloc(ctx, in->batch);
    int64_t n_logits = in->batch * taps.blocks->n;
    float *logits = arena_f32(ctx->arena, n_logits), *dlogits = arena_f32(ctx->arena, n_logits);
    struct WanInputs inputs = {.batch = in->batch, .x = x_t, .host_t = in->t, .text = in->text};
    wan_forward(&teacher, inputs, NULL, &taps, KEEP_NOTHING, ctx->arena, &ctx->tapes->teacher);
    discriminate(ctx, &d, &taps, in->batch, logits);
    be->softplus_loss(be, loss, dlogits, logits, sign, step_replicated_weight(ctx), in->batch,
                      taps.blocks->n);
    discriminator_backward(&d, dlogits, &ctx->tapes->discriminator, NULL, last, ctx->arena);
    arena_release(ctx->arena, mark);
}

void step_critic(const struct StepContext *ctx, const struct StepInputs *in,
                 struct CriticOutputs *out) {
    out->x_hat = step_latents(ctx, in->batch);
    out->squares = arena_f64(ctx->arena, in->batch);
    out->disc_fake = arena_f64(ctx->arena, in->batch);
    out->disc_real = arena_f64(ctx->arena, in->batch);
    float *x_hat_t = step_latents(ctx, in->batch), *x_real_t = step_latents(ctx, in->batch);
    generate_and_renoise(ctx, in, VIEW_FROZEN, KEEP_NOTHING, out->x_hat, x_hat_t);
    step_noise_to(ctx, in->batch, x_real_t, in->x, in->eps, in->t);

    fake_score_update(ctx, in, x_hat_t, out);
    if (ctx->nets->plan.present[ROLE_DISCRIMINATOR]) {
        discriminator_update(ctx, in, x_hat_t, 1.0, false, out->disc_fake);
        discriminator_update(ctx, in, x_real_t, -1.0, ctx->last, out->disc_real);
    } else {
        ctx->nets->be->zero(ctx->nets->be, out->disc_fake, in->batch * (int64_t)sizeof(double));
        ctx->nets->be->zero(ctx->nets->be, out->disc_real, in->batch * (int64_t)sizeof(double));
    }
}
