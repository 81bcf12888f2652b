/* Backbone, fusion and flow head, each forward with its backward.  The blocks are those of the
 * teacher (wan_stack.h); only the fusion and the embedding of s - r are new. */
#include "model/student.h"

#include "error.h"

static int64_t token_elems(const struct Student *s, int64_t batch) {
    return batch * s->wan.geometry->tokens * s->wan.config->dim;
}

/* The flow head's first block. */
static int64_t head_start(const struct Student *s) {
    return s->wan.config->num_layers - s->config->head_blocks;
}

static struct BlockPass block_pass(const struct Student *s, int64_t batch, const float *e0,
                                   const Act *context) {
    return (struct BlockPass){.config = s->wan.config,
                              .weights = s->wan.weights,
                              .batch = batch,
                              .tokens = s->wan.geometry->tokens,
                              .split = s->wan.geometry->split,
                              .cos_sin = s->wan.geometry->cos_sin,
                              .e0 = e0,
                              .context = context};
}

struct MainFeature student_backbone_forward(const struct Student *s, struct WanInputs in,
                                            enum Keep keep, struct Arena *arena,
                                            struct BackboneTape *tape) {
    const struct ModelConfig *c = s->wan.config;
    const struct Weights *w = s->wan.weights;
    Act *tokens = arena_act(arena, token_elems(s, in.batch));
    Act *context = arena_act(arena, in.batch * c->text_len * c->dim);
    int64_t mark = arena_mark(arena);
    float *e = arena_f32(arena, in.batch * c->dim), *e0 = arena_f32(arena, 6 * in.batch * c->dim);
    tape->batch = in.batch;
    patch_cut(c, w, s->wan.geometry, in.batch, in.x, arena, &tape->patch);
    patch_embed_forward(c, w, s->wan.geometry, in.batch, tokens, &tape->patch);
    time_embed_forward(c, w, TIME_0_W, in.batch, e, in.host_t, arena, &tape->time);
    time_project_forward(c, w, in.batch, e0, e, arena, &tape->projection);
    text_embed_forward(c, w, in.batch, context, in.text, arena, &tape->text);
    tape->pass = block_pass(s, in.batch, e0, context);
    struct MainFeature m = {.context = context};
    m.tokens = wan_stack_forward(&tape->pass, s->wan.geometry, tokens, keep, 0, head_start(s),
                                 in.skip_layers, NULL, arena, &tape->stack);
    if (keep == KEEP_NOTHING) arena_release(arena, mark);
    return m;
}

void student_backbone_backward(const struct Student *s, struct MainFeatureGradients dm,
                               const struct BackboneTape *tape, bool last, struct Arena *arena) {
    const struct ModelConfig *c = s->wan.config;
    const struct Weights *w = s->wan.weights;
    int64_t mark = arena_mark(arena), batch = tape->batch;
    float *de = arena_f32(arena, 7 * batch * c->dim), *de0 = de + batch * c->dim;
    w->be->zero(w->be, de, 7 * batch * c->dim * (int64_t)sizeof(float));
    struct BlockPassGradients want = {.de0 = de0, .dcontext = dm.dcontext};
    wan_stack_backward(&tape->pass, s->wan.geometry, dm.dtokens, head_start(s), NULL, &tape->stack, want,
                       last, arena);
    patch_embed_backward(c, w, s->wan.geometry, batch, NULL, dm.dtokens, &tape->patch, arena);
    text_embed_backward(c, w, batch, dm.dcontext, &tape->text, arena);
    time_project_backward(c, w, batch, de, de0, &tape->projection, arena);
    time_embed_backward(c, w, TIME_0_W, batch, de, &tape->time, arena);
    if (last) unit_grad_ready(w, UNIT_EMBEDDINGS);
    arena_release(arena, mark);
}

/* ---- fusion: what the flow head's blocks read, from m and the patches h of y_s ---- */

struct FusionShapes {
    struct LinearShape up, down, project;
    struct NormShape norm;
};

static struct FusionShapes fusion_shapes(const struct Student *s, int64_t batch) {
    const struct ModelConfig *c = s->wan.config;
    int64_t tokens = s->wan.geometry->tokens, rows = batch * tokens;
    return (struct FusionShapes){.up = {rows, c->dim, c->ffn_dim},
                                 .down = {rows, c->ffn_dim, c->dim},
                                 .project = {rows, 2 * c->dim, c->dim},
                                 .norm = {batch, tokens, c->dim, 3 * c->dim, 1.0f, (float)c->eps}};
}

/* The index of one of the student's own tensors, which the teacher lacks. */
static int own(const struct Student *s, enum FlowHeadParam which) {
    return flow_head_param(s->wan.config, which);
}

/* Gated: h' = h + gate ffn(norm(h) (1 + scale) + shift), (shift, scale, gate) = own modulation +
 * chunks 3..5 of the projected time; tokens = (1 - g) m + g h', g = sigmoid(logit). */
static void gated_forward(const struct Student *s, int64_t batch, Act *tokens, const float *e0,
                          struct Arena *arena, struct FusionTape *t) {
    const struct Weights *w = s->wan.weights;
    const struct Backend *be = w->be;
    struct FusionShapes shape = fusion_shapes(s, batch);
    int64_t d = s->wan.config->dim, n = token_elems(s, batch), rows = shape.up.rows;
    t->modulation = arena_f32(arena, batch * 3 * d);
    t->normed = arena_act(arena, n);
    t->mean = arena_f32(arena, rows);
    t->rstd = arena_f32(arena, rows);
    t->pre = arena_act(arena, rows * shape.up.n_out);
    t->hidden = arena_act(arena, rows * shape.up.n_out);
    t->out = arena_act(arena, n);
    t->mixed = arena_act(arena, n);
    be->rows_add(be, t->modulation, e0 + 3 * d, 6 * d, weight_f32(w, own(s, FUSION_MODULATION)), batch,
                 3 * d);
    be->layer_norm_forward(be, t->normed, t->mean, t->rstd, t->h, t->modulation + d, t->modulation,
                           shape.norm);
    be->linear_gelu_forward(be, t->hidden, t->pre, t->normed, weight_act(w, own(s, FUSION_FFN_0_W)),
                            weight_act(w, own(s, FUSION_FFN_0_B)), shape.up);
    be->linear_forward(be, t->out, t->hidden, weight_act(w, own(s, FUSION_FFN_2_W)),
                       weight_act(w, own(s, FUSION_FFN_2_B)), shape.down);
    be->gate_forward(be, t->mixed, t->h, t->out, t->modulation + 2 * d, shape.norm);
    if (tokens)
        be->mix_forward(be, tokens, t->m, t->mixed, weight_f32(w, own(s, FUSION_GATE)), n);
}

/* dtokens: in, the gradient of the tokens; out, that of h.  dm_tokens is overwritten, and so is the
 * tape: the gradient of `pre` takes the place of `hidden`. */
static void gated_backward(const struct Student *s, int64_t batch, Act *dm_tokens, Act *dtokens,
                           float *de0, const struct FusionTape *t, struct Arena *arena) {
    const struct Weights *w = s->wan.weights;
    const struct Backend *be = w->be;
    struct FusionShapes shape = fusion_shapes(s, batch);
    int64_t d = s->wan.config->dim, n = token_elems(s, batch), n_modulation = batch * 3 * d;
    int64_t mark = arena_mark(arena);
    Act *dh = arena_act(arena, n), *dout = arena_act(arena, n);
    Act *dpre = t->hidden;
    float *dmodulation = arena_f32(arena, n_modulation);
    be->zero(be, dmodulation, n_modulation * (int64_t)sizeof(float));

    be->mix_backward(be, dm_tokens, dh, weight_grad(w, own(s, FUSION_GATE)), dtokens, t->m, t->mixed,
                     weight_f32(w, own(s, FUSION_GATE)), n);
    be->gate_backward(be, dout, dmodulation + 2 * d, dh, t->out, t->modulation + 2 * d, shape.norm);
    be->linear_backward_params(be, weight_grad(w, own(s, FUSION_FFN_2_W)),
                               weight_grad(w, own(s, FUSION_FFN_2_B)), t->hidden, dout, shape.down);
    be->linear_gelu_backward_input(be, dpre, dout, weight_act(w, own(s, FUSION_FFN_2_W)), t->pre,
                                   shape.down);
    be->linear_backward_params(be, weight_grad(w, own(s, FUSION_FFN_0_W)),
                               weight_grad(w, own(s, FUSION_FFN_0_B)), t->normed, dpre, shape.up);
    be->linear_backward_input(be, dout, dpre, weight_act(w, own(s, FUSION_FFN_0_W)), shape.up, false);
    be->layer_norm_backward(be, dh, dmodulation + d, dmodulation, dout, t->h, t->mean, t->rstd,
                            t->modulation + d, shape.norm, true);
    be->rows_add_backward(be, de0 + 3 * d, 6 * d, weight_grad(w, own(s, FUSION_MODULATION)),
                          dmodulation, batch, 3 * d);
    be->copy(be, dtokens, dh, n * dtype_bytes(be->act_dtype));
    arena_release(arena, mark);
}

/* Concat: tokens = W [m, h] + b. */
static void concat_forward(const struct Student *s, int64_t batch, Act *tokens, struct Arena *arena,
                           struct FusionTape *t) {
    const struct Weights *w = s->wan.weights;
    struct LinearShape shape = fusion_shapes(s, batch).project;
    t->joined = arena_act(arena, shape.rows * shape.n_in);
    w->be->columns_join(w->be, t->joined, t->m, t->h, shape.rows, shape.n_out);
    if (tokens)
        w->be->linear_forward(w->be, tokens, t->joined, weight_act(w, own(s, FUSION_PROJ_W)),
                              weight_act(w, own(s, FUSION_PROJ_B)), shape);
}

static void concat_backward(const struct Student *s, int64_t batch, Act *dm_tokens, Act *dtokens,
                            const struct FusionTape *t, struct Arena *arena) {
    const struct Weights *w = s->wan.weights;
    struct LinearShape shape = fusion_shapes(s, batch).project;
    int64_t mark = arena_mark(arena);
    Act *djoined = arena_act(arena, shape.rows * shape.n_in);
    w->be->linear_backward_params(w->be, weight_grad(w, own(s, FUSION_PROJ_W)),
                                  weight_grad(w, own(s, FUSION_PROJ_B)), t->joined, dtokens, shape);
    w->be->linear_backward_input(w->be, djoined, dtokens, weight_act(w, own(s, FUSION_PROJ_W)), shape,
                                 false);
    w->be->columns_split(w->be, dm_tokens, dtokens, djoined, shape.rows, shape.n_out);
    arena_release(arena, mark);
}

/* From m and the patches of y_s to the fusion's tape and, unless that is NULL, to `tokens`. */
static void fusion_forward(const struct Student *s, const struct FlowHeadTape *head, Act *tokens,
                           struct Arena *arena, struct FusionTape *t) {
    const struct ModelConfig *c = s->wan.config;
    const struct Weights *w = s->wan.weights;
    t->h = arena_act(arena, token_elems(s, head->batch));
    patch_embed_forward(c, w, s->wan.geometry, head->batch, t->h, &head->patch);
    unit_acquire(w, unit_flow_head(c));
    if (s->config->fusion == FUSION_GATED)
        gated_forward(s, head->batch, tokens, head->pass.e0, arena, t);
    else
        concat_forward(s, head->batch, tokens, arena, t);
    unit_release(w, unit_flow_head(c));
}

/* As gated_backward and concat_backward.  With recomputation nothing of the fusion was kept, and
 * its forward runs again first. */
static void fusion_backward(const struct Student *s, const struct FlowHeadTape *head, Act *dm_tokens,
                            Act *dtokens, float *de0, struct Arena *arena) {
    const struct ModelConfig *c = s->wan.config;
    const struct Weights *w = s->wan.weights;
    int64_t mark = arena_mark(arena);
    struct FusionTape t = head->fusion;
    if (head->stack.keep != KEEP_ALL) fusion_forward(s, head, NULL, arena, &t);
    unit_acquire_backward(w, unit_flow_head(c));
    if (s->config->fusion == FUSION_GATED)
        gated_backward(s, head->batch, dm_tokens, dtokens, de0, &t, arena);
    else
        concat_backward(s, head->batch, dm_tokens, dtokens, &t, arena);
    unit_release(w, unit_flow_head(c));
    arena_release(arena, mark);
}

/* ---- flow head ---- */

/* e = time_embedding(1000 s) + delta_embedding(1000 (s - r)) */
static void head_time_forward(const struct Student *s, int64_t batch, const double *host_s,
                              const double *host_r, struct Arena *arena, struct FlowHeadTape *t) {
    const struct ModelConfig *c = s->wan.config;
    const struct Weights *w = s->wan.weights;
    double span[STUDENT_MAX_BATCH];
    TMD_CHECK(batch <= STUDENT_MAX_BATCH, "a batch of %lld", (long long)batch);
    for (int64_t b = 0; b < batch; b++) span[b] = host_s[b] - host_r[b];
    t->e = arena_f32(arena, batch * c->dim);
    float *delta = arena_f32(arena, batch * c->dim);
    time_embed_forward(c, w, TIME_0_W, batch, t->e, host_s, arena, &t->time);
    time_embed_forward(c, w, own(s, DELTA_0_W), batch, delta, span, arena, &t->delta);
    w->be->add_f32(w->be, t->e, t->e, delta, batch * c->dim);
}

void flow_head_forward(const struct Student *s, struct MainFeature m, int64_t batch, float *out,
                       const float *y_s, const double *host_s, const double *host_r, enum Keep keep,
                       struct Arena *arena, struct FlowHeadTape *t) {
    const struct ModelConfig *c = s->wan.config;
    const struct Weights *w = s->wan.weights;
    int64_t mark = arena_mark(arena), n = token_elems(s, batch);
    float *e0 = arena_f32(arena, 6 * batch * c->dim);
    Act *tokens = arena_act(arena, n);
    t->batch = batch;
    t->fusion.m = m.tokens;
    head_time_forward(s, batch, host_s, host_r, arena, t);
    time_project_forward(c, w, batch, e0, t->e, arena, &t->projection);
    patch_cut(c, w, s->wan.geometry, batch, y_s, arena, &t->patch);
    t->pass = block_pass(s, batch, e0, m.context);
    int64_t fusion_mark = arena_mark(arena);
    fusion_forward(s, t, tokens, arena, &t->fusion);
    if (keep != KEEP_ALL) arena_release(arena, fusion_mark);
    const Act *last = wan_stack_forward(&t->pass, s->wan.geometry, tokens, keep, head_start(s),
                                        c->num_layers, NULL, NULL, arena, &t->stack);
    wan_head_forward(c, w, s->wan.geometry, batch, out, last, t->e, arena, &t->head);
    if (keep == KEEP_NOTHING) arena_release(arena, mark);
}

void flow_head_backward(const struct Student *s, struct MainFeatureGradients dm, float *dy_s,
                        const float *dout, const struct FlowHeadTape *t, bool last,
                        struct Arena *arena) {
    const struct ModelConfig *c = s->wan.config;
    const struct Weights *w = s->wan.weights;
    const struct Backend *be = w->be;
    int64_t mark = arena_mark(arena), n = token_elems(s, t->batch), n_e = t->batch * c->dim;
    Act *dtokens = arena_act(arena, n);
    float *de = arena_f32(arena, 7 * n_e), *de0 = de + n_e;
    be->zero(be, de, 7 * n_e * (int64_t)sizeof(float));

    wan_head_backward(c, w, s->wan.geometry, t->batch, dtokens, de, dout, &t->head, arena);
    if (last) unit_grad_ready(w, unit_head(c));
    struct BlockPassGradients want = {.de0 = de0, .dcontext = dm.dcontext};
    wan_stack_backward(&t->pass, s->wan.geometry, dtokens, c->num_layers, NULL, &t->stack, want, last,
                       arena);
    Act *dm_tokens = arena_act(arena, n);
    fusion_backward(s, t, dm_tokens, dtokens, de0, arena);
    be->act_add(be, dm.dtokens, dm.dtokens, dm_tokens, n);
    patch_embed_backward(c, w, s->wan.geometry, t->batch, dy_s, dtokens, &t->patch, arena);
    time_project_backward(c, w, t->batch, de, de0, &t->projection, arena);
    time_embed_backward(c, w, TIME_0_W, t->batch, de, &t->time, arena);
    time_embed_backward(c, w, own(s, DELTA_0_W), t->batch, de, &t->delta, arena);
    if (last) unit_grad_ready(w, unit_flow_head(c));
    arena_release(arena, mark);
}

struct MainFeatureGradients main_feature_gradients(const struct Student *s, int64_t batch,
                                                   struct Arena *arena) {
    const struct ModelConfig *c = s->wan.config;
    const struct Backend *be = s->wan.weights->be;
    int64_t n = token_elems(s, batch), n_context = batch * c->text_len * c->dim;
    struct MainFeatureGradients dm = {arena_act(arena, n), arena_act(arena, n_context)};
    be->zero(be, dm.dtokens, n * dtype_bytes(be->act_dtype));
    be->zero(be, dm.dcontext, n_context * dtype_bytes(be->act_dtype));
    return dm;
}
