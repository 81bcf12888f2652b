/* Stage one: transition-matching MeanFlow (TMD, arXiv 2601.09881; MeanFlow, Geng et al., arXiv
 * 2505.13447).
 *
 *     y = x1 - x,  y_s = (1 - s) y + s y1,  v = y1 - y,  u = y1 - head(y_s, s, r; m(x_t, t, c))
 *     target = sg(v - (s - r) du/ds),  loss = |u - target|^2 / sg(|u - target|^2 + k)
 *
 * sg: no gradient through it; k: norm_const_per_dim times the elements of a latent.  With guidance,
 * v is first moved away from the student's own prediction for the negative prompt.
 *
 * du/ds is the total derivative along the path (y_s + d v, s + d) with r fixed.  It is taken by
 * finite differences that stay within [s_min, s_max] and above r; their two passes of the flow head
 * share the main feature m.  Where r = s, as in most samples, the factor of du/ds is zero, and it
 * is not computed. */
#include "train/step_common.h"

/* v := v_neg + guidance (v - v_neg) for the samples that kept their text, where v_neg = y1 -
 * head(y_s, s, s; m(x_t, t, negative prompt)). */
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
    for (int64_t b = 0; b < in->batch; b++) { /* v := keep v + rest (y1 - head) */
        keep[b] = in->drop[b] ? 1.0 : guidance;
        rest[b] = 1.0 - keep[b];
        minus_rest[b] = -rest[b];
    }
    step_combine(ctx, in->batch, v, 3,
                 (struct Term[]){{v, keep, 0.0}, {in->y1, rest, 0.0}, {head, minus_rest, 0.0}});
    arena_release(ctx->arena, mark);
}

/* The samples of a batch whose target reads the derivative. */
struct Picked {
    int64_t n, index[STUDENT_MAX_BATCH];
};

static struct Picked pick(const struct StepContext *ctx, const struct StepInputs *in) {
    struct Picked picked = {0};
    if (ctx->nets->config->stage1.method == STAGE1_TM) return picked;
    for (int64_t b = 0; b < in->batch; b++)
        if (in->r[b] < in->s[b] || ctx->all_outputs) picked.index[picked.n++] = b;
    /* another rank may need this one's share of the weights for its samples: run some pass */
    if (ctx->lockstep && picked.n == 0) picked.n = 1;
    return picked;
}

/* Picked samples of `all`, n_bytes each, side by side. */
static void gather(const struct StepContext *ctx, const struct Picked *picked, void *side_by_side,
                   const void *all, int64_t n_bytes) {
    const struct Backend *be = ctx->nets->be;
    for (int64_t k = 0; k < picked->n; k++)
        be->copy(be, (char *)side_by_side + k * n_bytes,
                 (const char *)all + picked->index[k] * n_bytes, n_bytes);
}

static float *gather_latents(const struct StepContext *ctx, const struct Picked *picked,
                             const float *all) {
    float *latents = step_latents(ctx, picked->n);
    gather(ctx, picked, latents, all, networks_latent_elems(ctx->nets) * (int64_t)sizeof *all);
    return latents;
}

static const Act *gather_rows(const struct StepContext *ctx, const struct Picked *picked,
                              const Act *all, int64_t rows) {
    int64_t n = rows * ctx->nets->config->model.dim;
    Act *side_by_side = arena_act(ctx->arena, picked->n * n);
    gather(ctx, picked, side_by_side, all, n * dtype_bytes(ctx->nets->be->act_dtype));
    return side_by_side;
}

/* head = head(y_s + delta v, s + delta, r; m): the flow head a step further along the path. */
static void head_along_path(const struct StepContext *ctx, struct MainFeature m, int64_t batch,
                            float *head, const float *y_s, const float *v, const double *s,
                            const double *delta, const double *r) {
    struct Student student = networks_student(ctx->nets, VIEW_FROZEN);
    double moved_s[STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < batch; b++) moved_s[b] = s[b] + delta[b];
    int64_t mark = arena_mark(ctx->arena);
    float *y = step_latents(ctx, batch);
    step_combine(ctx, batch, y, 2, (struct Term[]){{y_s, NULL, 1.0}, {v, delta, 0.0}});
    flow_head_forward(&student, m, batch, head, y, moved_s, r, KEEP_NOTHING, ctx->arena,
                      &ctx->tapes->passing_head);
    arena_release(ctx->arena, mark);
}

/* jvp = du/ds = (head_lo - head_hi) / (s_hi - s_lo), since u = y1 - head; zero where it is not read. */
static void total_derivative(const struct StepContext *ctx, const struct StepInputs *in,
                             struct MainFeature m, const float *all_y_s, const float *all_v,
                             float *jvp) {
    const struct Stage1Config *c = &ctx->nets->config->stage1;
    const struct Backend *be = ctx->nets->be;
    struct Picked picked = pick(ctx, in);
    int64_t n = picked.n, n_bytes = networks_latent_elems(ctx->nets) * (int64_t)sizeof(float);
    be->zero(be, jvp, in->batch * n_bytes);
    if (n == 0) return;
    double s[STUDENT_MAX_BATCH], r[STUDENT_MAX_BATCH], up[STUDENT_MAX_BATCH], down[STUDENT_MAX_BATCH];
    double inverse[STUDENT_MAX_BATCH], minus_inverse[STUDENT_MAX_BATCH];
    for (int64_t k = 0; k < n; k++) {
        s[k] = in->s[picked.index[k]], r[k] = in->r[picked.index[k]];
        double lo = s[k] - c->fd_delta, hi = s[k] + c->fd_delta;
        up[k] = hi <= c->s_max ? c->fd_delta : 0.0;
        down[k] = lo >= c->s_min && lo > r[k] ? -c->fd_delta : 0.0;
        double width = up[k] - down[k];
        inverse[k] = width > 0.0 ? 1.0 / width : 0.0;
        minus_inverse[k] = -inverse[k];
    }
    int64_t mark = arena_mark(ctx->arena);
    float *y_s = gather_latents(ctx, &picked, all_y_s), *v = gather_latents(ctx, &picked, all_v);
    float *head_hi = step_latents(ctx, n), *head_lo = step_latents(ctx, n);
    m.tokens = gather_rows(ctx, &picked, m.tokens, ctx->nets->geometry.tokens);
    m.context = gather_rows(ctx, &picked, m.context, ctx->nets->config->model.text_len);
    head_along_path(ctx, m, n, head_hi, y_s, v, s, up, r);
    head_along_path(ctx, m, n, head_lo, y_s, v, s, down, r);
    step_combine(ctx, n, head_lo, 2,
                 (struct Term[]){{head_lo, inverse, 0.0}, {head_hi, minus_inverse, 0.0}});
    for (int64_t k = 0; k < n; k++)
        be->copy(be, (char *)jvp + picked.index[k] * n_bytes, (char *)head_lo + k * n_bytes, n_bytes);
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
    enum Keep keep = networks_keep(ctx->nets);
    struct MainFeature m =
        student_backbone_forward(&student, inputs, keep, ctx->arena, &ctx->tapes->backbone);
    flow_head_forward(&student, m, batch, out->u, y_s, in->s, in->r, keep, ctx->arena,
                      &ctx->tapes->head);
    step_combine(ctx, batch, out->u, 2,
                 (struct Term[]){{in->y1, NULL, 1.0}, {out->u, NULL, -1.0}});

    double minus_span[STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < batch; b++) minus_span[b] = in->r[b] - in->s[b];
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
