/* Heads that attend: one learned query asks all tokens of the tapped block.
 *
 * The query is one token per sample to the attention, whose gradients for all samples are summed.
 * k and v are the halves of one product's rows, [B, S, 2, channels[2]]. */
#include <math.h>

#include "model/discriminator_body.h"
#include "model/wan_embed.h"

enum { MAX_HEAD_DIM = 64 };

/* ---- parameters: in this order in the table; k and v lie together, so that one product serves
 * both */

enum AttentionParam { NORM_WEIGHT, NORM_BIAS, K_WEIGHT, V_WEIGHT, QUERY };

static void attention_params(struct ParamTable *table, const char *head,
                             const struct ModelConfig *model,
                             const struct DiscriminatorConfig *config) {
    int64_t dim = model->dim, width = config->channels[2];
    const int64_t matrix[PARAM_MAX_DIMS] = {width, dim}, vector[PARAM_MAX_DIMS] = {width};
    double bound = 1.0 / sqrt((double)dim);
    discriminator_add_norm(table, head, "norm", dim);
    discriminator_add(table, head, "attention.k", "weight", 0, INIT_UNIFORM, bound, matrix);
    discriminator_add(table, head, "attention.v", "weight", PARAM_JOINED, INIT_UNIFORM, bound,
                      matrix);
    discriminator_add(table, head, "attention", "query", PARAM_F32, INIT_UNIFORM, 1.0, vector);
}

/* ---- sizes */

struct Sizes {
    int64_t rows, width; /* tokens of all samples; of k, v and the query */
    struct PatchShape patches;
    struct NormShape norm;
    struct LinearShape kv;
    struct AttentionShape attention;
};

static struct Sizes sizes_of(const struct HeadPass *pass) {
    const struct ModelConfig *m = &pass->d->model;
    const int64_t *patch = m->patch_size;
    struct VideoShape v = pass->shape;
    int64_t batch = pass->batch, width = pass->d->config.channels[2];
    int64_t tokens = v.frames / patch[0] * (v.height / patch[1]) * (v.width / patch[2]);
    int64_t head_dim = largest_divisor(width, MAX_HEAD_DIM);
    return (struct Sizes){
        .rows = batch * tokens,
        .width = width,
        .patches = wan_patch_shape(m, v, batch, discriminator_tap_channels(m), true),
        .norm = {.batch = batch, .tokens = tokens, .dim = m->dim, .eps = NORM_EPS},
        .kv = {.rows = batch * tokens, .n_in = m->dim, .n_out = 2 * width},
        .attention = {.batch = batch,
                      .heads = width / head_dim,
                      .head_dim = head_dim,
                      .q_tokens = 1,
                      .k_tokens = tokens,
                      .q_stride = width,
                      .k_stride = 2 * width,
                      .v_stride = 2 * width,
                      .o_stride = width}};
}

/* ---- forward */

/* The query once for each sample. */
static void repeat_query(const struct HeadPass *pass, Act *out, int64_t width,
                         struct Arena *arena) {
    const struct Weights *w = pass->d->weights;
    const struct Backend *be = w->be;
    int64_t n_elems = pass->batch * width, mark = arena_mark(arena);
    float *zeros = arena_f32(arena, n_elems), *rows = arena_f32(arena, n_elems);
    be->zero(be, zeros, n_elems * (int64_t)sizeof *zeros);
    be->rows_add(be, rows, zeros, width, weight_f32(w, pass->first_param + QUERY), pass->batch,
                 width);
    be->act_from_f32(be, out, rows, n_elems);
    arena_release(arena, mark);
}

static void project(const struct HeadPass *pass, Act *kv, const Act *normed,
                    struct LinearShape shape, struct Arena *arena) {
    const struct Weights *w = pass->d->weights;
    const struct Backend *be = w->be;
    int64_t mark = arena_mark(arena);
    Act *no_bias = arena_act(arena, shape.n_out);
    be->zero(be, no_bias, shape.n_out * dtype_bytes(be->act_dtype));
    be->linear_forward(be, kv, normed, weight_act(w, pass->first_param + K_WEIGHT), no_bias, shape);
    arena_release(arena, mark);
}

static void attention_forward(const struct HeadPass *pass, const Act *tap, float *pooled,
                              struct Arena *arena, struct DiscriminatorHeadTape *tape) {
    const struct Weights *w = pass->d->weights;
    const struct Backend *be = w->be;
    struct Sizes s = sizes_of(pass);
    struct AttentionBodyTape *t = &tape->attention;
    t->tokens = arena_act(arena, s.rows * s.norm.dim);
    t->normed = arena_act(arena, s.rows * s.norm.dim);
    t->mean = arena_f32(arena, s.rows);
    t->rstd = arena_f32(arena, s.rows);
    t->kv = arena_act(arena, s.rows * 2 * s.width);
    t->query = arena_act(arena, pass->batch * s.width);
    t->out = arena_act(arena, pass->batch * s.width);
    t->lse = arena_f32(arena, pass->batch * s.attention.heads);

    be->act_patches_gather(be, t->tokens, tap, s.patches);
    be->layer_norm_forward(be, t->normed, t->mean, t->rstd, t->tokens,
                           weight_f32(w, pass->first_param + NORM_WEIGHT),
                           weight_f32(w, pass->first_param + NORM_BIAS), s.norm);
    project(pass, t->kv, t->normed, s.kv, arena);
    repeat_query(pass, t->query, s.width, arena);
    be->attention_forward(be, t->out, t->lse, t->query, t->kv, act_at(be, t->kv, s.width),
                          s.attention);
    be->act_to_f32(be, pooled, t->out, pass->batch * s.width);
}

/* ---- backward */

/* dkv from dpooled, and the query's gradient. */
static void attend_backward(const struct HeadPass *pass, Act *dkv, const float *dpooled,
                            const struct Sizes *s, const struct AttentionBodyTape *t,
                            struct Arena *arena) {
    const struct Weights *w = pass->d->weights;
    const struct Backend *be = w->be;
    int64_t n_elems = pass->batch * s->width;
    Act *dout = arena_act(arena, n_elems), *dquery = arena_act(arena, n_elems);
    be->act_from_f32(be, dout, dpooled, n_elems);
    be->attention_backward(be, dquery, dkv, act_at(be, dkv, s->width), dout, t->out, t->lse,
                           t->query, t->kv, act_at(be, t->kv, s->width), s->attention);
    if (!w->trained) return;
    float *rows = arena_f32(arena, n_elems);
    be->act_to_f32(be, rows, dquery, n_elems);
    be->rows_add_backward(be, NULL, 0, weight_grad(w, pass->first_param + QUERY), rows, pass->batch,
                          s->width);
}

static void attention_backward(const struct HeadPass *pass, Act *dtap, const float *dpooled,
                               const struct DiscriminatorHeadTape *tape, struct Arena *arena) {
    const struct Weights *w = pass->d->weights;
    const struct Backend *be = w->be;
    const struct AttentionBodyTape *t = &tape->attention;
    struct Sizes s = sizes_of(pass);
    int norm_w = pass->first_param + NORM_WEIGHT, norm_b = pass->first_param + NORM_BIAS;
    int kv = pass->first_param + K_WEIGHT;
    Act *dkv = arena_act(arena, s.rows * 2 * s.width);
    Act *dnormed = arena_act(arena, s.rows * s.norm.dim);
    Act *dtokens = arena_act(arena, s.rows * s.norm.dim);
    attend_backward(pass, dkv, dpooled, &s, t, arena);
    if (w->trained) be->linear_backward_params(be, weight_grad(w, kv), NULL, t->normed, dkv, s.kv);
    be->linear_backward_input(be, dnormed, dkv, weight_act(w, kv), s.kv, false);
    be->layer_norm_backward(be, dtokens, weight_grad(w, norm_w), weight_grad(w, norm_b), dnormed,
                            t->tokens, t->mean, t->rstd, weight_f32(w, norm_w), s.norm, false);
    if (dtap) be->act_patches_scatter(be, dtap, dtokens, s.patches);
}

const struct DiscriminatorBody discriminator_attention_body = {attention_params, attention_forward,
                                                               attention_backward};
