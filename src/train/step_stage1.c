/* Stage 1: transition-matching MeanFlow (method.md, "Stage 1"; TMD, arXiv 2601.09881; MeanFlow, Geng et
 * al. 2025).
 *
 *     y = x1 - x,  y_s = (1 - s) y + s y1,  v = y1 - y,  u = y1 - head(y_s, s, r; m(x_t, t, c))
 *     v is guided against the student's own unconditional prediction, u_neg, without gradient
 *     target = sg(v - (s - r) du/ds),  loss = |u - target|^2 / sg(|u - target|^2 + c)
 *
 * du/ds is the total derivative along the path (y_s + d v, s + d), r fixed, by finite differences that
 * stay inside (r, s_max]; the main feature m is shared by its two passes. */
#include "train/step_common.h"

/* v := v_neg + guidance (v - v_neg) for the samples that kept their text. */
static void guide(const struct StepContext *ctx, const struct StepInputs *in, const float *x_t,
                  const float *y_s, float *v) {
    struct Student student = networks_student(ctx->nets, VIEW_FROZEN);
    double guidance = ctx->nets->config->stage1.guidance, keep[STUDENT_MAX_BATCH];
    double rest[STUDENT_MAX_BATCH], minus_rest[STUDENT_MAX_BATCH];
    if (guidance == 1.0) return;
    int64_t mark = arena_mark(ctx->arena);
    float *head = step_latents(ctx, in->batch);
    struct WanInputs negative = {
        .batch = in->batch, .x = x_t, .host_t = in->t, .text = in->neg_text};
    struct MainFeature m = student_backbone_forward(&student, negative, KEEP_NOTHING, ctx->arena,
                                                    &ctx->tapes->passing_backbone);
    flow_head_forward(&student, m, in->batch, head, y_s, in->s, in->s, KEEP_NOTHING, ctx->arena,
                      &ctx->tapes->passing_head);
    for (int64_t b = 0; b < in->batch; b++) { /* v_neg = y1 - head */
        keep[b] = in->drop[b] ? 1.0 : guidance;
        rest[b] = 1.0 - keep[b];
        minus_rest[b] = -rest[b];
    }
    step_combine(ctx, in->batch, v, 3,
                 (struct Term[]){{v, keep, 0.0}, {in->y1, rest, 0.0}, {head, minus_rest, 0.0}});
    arena_release(ctx->arena, mark);
}

/* jvp = du/ds = (head_lo - head_hi) / (s_hi - s_lo), since u = y1 - head. */
static void total_derivative(const struct StepContext *ctx, const struct StepInputs *in,
                             struct MainFeature m, const float *y_s, const float *v, float *jvp) {
    const struct Stage1Config *c = &ctx->nets->config->stage1;
    struct Student student = networks_student(ctx->nets, VIEW_FROZEN);
    double s_hi[STUDENT_MAX_BATCH], s_lo[STUDENT_MAX_BATCH], up[STUDENT_MAX_BATCH];
    double down[STUDENT_MAX_BATCH], inverse[STUDENT_MAX_BATCH], minus_inverse[STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < in->batch; b++) {
        double s = in->s[b], lo = s - c->fd_delta, hi = s + c->fd_delta;
        s_hi[b] = hi <= c->s_max ? hi : s;
        s_lo[b] = lo >= c->s_min && lo > in->r[b] ? lo : s;
        up[b] = s_hi[b] - s;
        down[b] = s_lo[b] - s;
        double width = s_hi[b] - s_lo[b];
        inverse[b] = width > 0.0 ? 1.0 / width : 0.0;
        minus_inverse[b] = -inverse[b];
    }
    int64_t mark = arena_mark(ctx->arena);
    float *y = step_latents(ctx, in->batch), *head_lo = step_latents(ctx, in->batch);
    float *head_hi = jvp;
    step_combine(ctx, in->batch, y, 2, (struct Term[]){{y_s, NULL, 1.0}, {v, up, 0.0}});
    flow_head_forward(&student, m, in->batch, head_hi, y, s_hi, in->r, KEEP_NOTHING, ctx->arena,
                      &ctx->tapes->passing_head);
    step_combine(ctx, in->batch, y, 2, (struct Term[]){{y_s, NULL, 1.0}, {v, down, 0.0}});
    flow_head_forward(&student, m, in->batch, head_lo, y, s_lo, in->r, KEEP_NOTHING, ctx->arena,
                      &ctx->tapes->passing_head);
    step_combine(ctx, in->batch, jvp, 2,
                 (struct Term[]){{head_lo, inverse, 0.0}, {head_hi, minus_inverse, 0.0}});
    arena_release(ctx->arena, mark);
}

void step_stage1(const struct StepContext *ctx, const struct StepInputs *in,
                 struct Stage1Outputs *out) {
    const struct Config *config = ctx->nets->config;
    const struct Backend *be = ctx->nets->be;
    struct Student student = networks_student(ctx->nets, VIEW_TRAINED);
    int64_t batch = in->batch, n = networks_latent_elems(ctx->nets);
    float **videos[] = {&out->u, &out->v, &out->jvp, &out->target};
    for (int i = 0; i < 4; i++) *videos[i] = step_latents(ctx, batch);
    out->loss = arena_f64(ctx->arena, batch);
    out->squares = arena_f64(ctx->arena, batch);

    float *x_t = step_latents(ctx, batch), *y = step_latents(ctx, batch);
    float *y_s = step_latents(ctx, batch), *du = step_latents(ctx, batch);
    step_noise_to(ctx, batch, x_t, in->x, in->x1, in->t);
    step_combine(ctx, batch, y, 2, (struct Term[]){{in->x1, NULL, 1.0}, {in->x, NULL, -1.0}});
    step_noise_to(ctx, batch, y_s, y, in->y1, in->s);
    step_combine(ctx, batch, out->v, 2, (struct Term[]){{in->y1, NULL, 1.0}, {y, NULL, -1.0}});
    guide(ctx, in, x_t, y_s, out->v);

    struct WanInputs inputs = {
        .batch = batch, .x = x_t, .host_t = in->t, .text = step_text(ctx, in)};
    struct MainFeature m = student_backbone_forward(&student, inputs, step_keep(ctx), ctx->arena,
                                                    &ctx->tapes->backbone);
    flow_head_forward(&student, m, batch, out->u, y_s, in->s, in->r, step_keep(ctx), ctx->arena,
                      &ctx->tapes->head);
    step_combine(ctx, batch, out->u, 2,
                 (struct Term[]){{in->y1, NULL, 1.0}, {out->u, NULL, -1.0}});

    double minus_span[STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < batch; b++) minus_span[b] = in->r[b] - in->s[b];
    if (config->stage1.method == STAGE1_TM) /* r = s: the derivative's factor is zero */
        be->zero(be, out->jvp, batch * n * (int64_t)sizeof(float));
    else
        total_derivative(ctx, in, m, y_s, out->v, out->jvp);
    step_combine(ctx, batch, out->target, 2,
                 (struct Term[]){{out->v, NULL, 1.0}, {out->jvp, minus_span, 0.0}});

    be->adaptive_loss(be, out->loss, out->squares, du, out->u, out->target,
                      config->stage1.norm_const_per_dim * (double)n, ctx->sample_weight, batch, n);
    step_combine(ctx, batch, du, 1, (struct Term[]){{du, NULL, -1.0}}); /* of head = y1 - u */
    struct MainFeatureGradients dm = main_feature_gradients(&student, batch, ctx->arena);
    flow_head_backward(&student, dm, NULL, du, &ctx->tapes->head, ctx->last, ctx->arena);
    student_backbone_backward(&student, dm, &ctx->tapes->backbone, ctx->last, ctx->arena);
}
