#include "model/wan_block.h"

enum ModulationChunk { SHIFT1, SCALE1, GATE1, SHIFT2, SCALE2, GATE2, MODULATION_CHUNKS };

struct BlockContext { /* the names that every line below needs */
    const struct Backend *be;
    const struct Weights *w;
    int64_t block, dim, rows, text_rows;
    struct NormShape modulated, affine;
    struct QkNormShape qk_self, q_cross, k_cross;
    const struct TokenSplit *split;
    struct AttentionShape self, cross;
    struct LinearShape square, qkv, kv, up, down;
};

/* Of the tokens here and all heads or, where they are split, of all tokens and the own heads, whose q,
 * k and v lie side by side. */
static struct AttentionShape self_shape(const struct BlockPass *pass) {
    const struct ModelConfig *c = pass->config;
    int64_t d = c->dim, heads = c->num_heads, head_dim = d / heads, tokens = pass->tokens;
    if (!pass->split)
        return (struct AttentionShape){pass->batch, heads, head_dim, tokens, tokens, d, d, 3 * d, d};
    heads /= pass->split->n_parts;
    d /= pass->split->n_parts;
    tokens = pass->split->tokens;
    return (struct AttentionShape){pass->batch, heads,  head_dim, tokens, tokens,
                                   3 * d,       3 * d, 3 * d,    d};
}

static struct BlockContext block_context(const struct BlockPass *pass, int64_t block) {
    const struct ModelConfig *c = pass->config;
    int64_t d = c->dim, rows = pass->batch * pass->tokens, text_rows = pass->batch * c->text_len;
    int64_t head_dim = d / c->num_heads;
    float eps = (float)c->eps;
    return (struct BlockContext){
        .be = pass->weights->be,
        .w = pass->weights,
        .block = block,
        .dim = d,
        .rows = rows,
        .text_rows = text_rows,
        .modulated = {pass->batch, pass->tokens, d, MODULATION_CHUNKS * d, 1.0f, eps},
        .affine = {pass->batch, pass->tokens, d, 0, 0.0f, eps},
        .qk_self = {pass->batch, pass->tokens, d, c->num_heads, 3 * d, eps},
        .q_cross = {pass->batch, pass->tokens, d, c->num_heads, d, eps},
        .k_cross = {pass->batch, c->text_len, d, c->num_heads, 2 * d, eps},
        .split = pass->split,
        .self = self_shape(pass),
        .cross = {pass->batch, c->num_heads, head_dim, pass->tokens, c->text_len, d, d, 2 * d, d},
        .square = {rows, d, d},
        .qkv = {rows, d, 3 * d},
        .kv = {text_rows, d, 2 * d},
        .up = {rows, d, c->ffn_dim},
        .down = {rows, c->ffn_dim, d},
    };
}

static const Act *w_act(const struct BlockContext *c, enum BlockParam which) {
    return weight_act(c->w, block_param(c->block, which));
}
static const float *w_f32(const struct BlockContext *c, enum BlockParam which) {
    return weight_f32(c->w, block_param(c->block, which));
}
static float *w_grad(const struct BlockContext *c, enum BlockParam which) {
    return weight_grad(c->w, block_param(c->block, which));
}

/* Of a tensor of self-attention, with its heads and tokens. */
static int64_t heads_elems(const struct BlockContext *c) {
    return c->self.batch * c->self.q_tokens * c->self.heads * c->self.head_dim;
}

static void attended_alloc(const struct BlockContext *c, struct Arena *arena,
                           struct BlockTape *tape) {
    int64_t n = c->rows * c->dim;
    tape->self.out = arena_act(arena, n);
    tape->self.of_heads = c->split ? arena_act(arena, heads_elems(c)) : tape->self.out;
    tape->self.lse = arena_f32(arena, c->self.batch * c->self.q_tokens * c->self.heads);
    tape->cross.out = arena_act(arena, n);
    tape->cross.lse = arena_f32(arena, c->rows * c->cross.heads);
    tape->attended = arena_mark(arena);
}

/* What self-attention reads. */
static void attending_alloc(const struct BlockContext *c, struct Arena *arena,
                            struct BlockTape *tape) {
    if (c->split) {
        tape->self.q = arena_act(arena, 3 * heads_elems(c));
        tape->self.k = act_at(c->be, tape->self.q, c->self.o_stride);
        tape->self.v = act_at(c->be, tape->self.q, 2 * c->self.o_stride);
    } else {
        tape->self.q = arena_act(arena, c->rows * c->dim);
        tape->self.k = arena_act(arena, c->rows * c->dim);
        tape->self.v = act_at(c->be, tape->self.qkv, 2 * c->dim);
    }
}

/* All but the results of the attentions.  `x`: where the residuals are summed in place, or NULL. */
static void rest_alloc(const struct BlockContext *c, struct Arena *arena, Act *x,
                       struct BlockTape *tape) {
    int64_t n = c->rows * c->dim, n_ffn = c->rows * c->up.n_out;
    tape->modulation = arena_f32(arena, c->modulated.batch * MODULATION_CHUNKS * c->dim);
    tape->x_self = x ? x : arena_act(arena, n);
    tape->x_cross = x ? x : arena_act(arena, n);
    Act **h[] = {&tape->norm1.h, &tape->norm3.h, &tape->norm2.h};
    float **stats[] = {&tape->norm1.mean, &tape->norm1.rstd, &tape->norm3.mean,  &tape->norm3.rstd,
                       &tape->norm2.mean, &tape->norm2.rstd, &tape->self.rstd_q, &tape->self.rstd_k,
                       &tape->cross.rstd_q};
    for (int i = 0; i < 3; i++) *h[i] = arena_act(arena, n);
    for (int i = 0; i < 9; i++) *stats[i] = arena_f32(arena, c->rows);
    tape->self.qkv = arena_act(arena, 3 * n);
    attending_alloc(c, arena, tape);
    tape->self.projected = arena_act(arena, n);
    tape->cross.q_raw = arena_act(arena, n);
    tape->cross.q = arena_act(arena, n);
    tape->cross.kv = arena_act(arena, 2 * c->text_rows * c->dim);
    tape->cross.k = arena_act(arena, c->text_rows * c->dim);
    tape->cross.rstd_k = arena_f32(arena, c->text_rows);
    tape->ffn_pre = arena_act(arena, n_ffn);
    tape->ffn_hidden = arena_act(arena, n_ffn);
    tape->ffn_out = arena_act(arena, n);
}

/* Chunk `which` of the first sample's modulation; the next sample's is MODULATION_CHUNKS dim on. */
static float *chunk(const struct BlockContext *c, float *modulation, enum ModulationChunk which) {
    return modulation ? modulation + which * c->dim : NULL;
}

/* From the raw q, k, v in `qkv` to `out`. */
static void self_attend(const struct BlockContext *c, const float *cos_sin, bool attended,
                        struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t mark = arena_mark(arena), n = c->rows * c->dim;
    Act *raw_q = t->self.qkv, *raw_k = act_at(be, raw_q, c->dim);
    Act *q = c->split ? arena_act(arena, n) : t->self.q;
    Act *k = c->split ? arena_act(arena, n) : t->self.k;
    be->qk_norm_forward(be, q, t->self.rstd_q, raw_q, w_f32(c, SELF_NORM_Q), cos_sin, c->qk_self);
    be->qk_norm_forward(be, k, t->self.rstd_k, raw_k, w_f32(c, SELF_NORM_K), cos_sin, c->qk_self);
    if (c->split) {
        const struct TokenStream qkv[] = {
            {q, c->dim}, {k, c->dim}, {act_at(be, raw_q, 2 * c->dim), 3 * c->dim}};
        token_split_to_heads(c->split, t->self.q, qkv, 3, c->self.batch, c->dim, arena);
    }
    if (!attended) {
        be->attention_forward(be, t->self.of_heads, t->self.lse, t->self.q, t->self.k, t->self.v,
                              c->self);
        if (c->split)
            token_split_to_tokens(c->split, &(struct TokenStream){t->self.out, c->dim}, 1,
                                  t->self.of_heads, c->self.batch, c->dim, arena);
    }
    arena_release(arena, mark);
}

static void self_attention_forward(const struct BlockContext *c, const float *cos_sin,
                                   bool attended, struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    be->layer_norm_forward(be, t->norm1.h, t->norm1.mean, t->norm1.rstd, t->x,
                           chunk(c, t->modulation, SCALE1), chunk(c, t->modulation, SHIFT1),
                           c->modulated);
    be->linear_forward(be, t->self.qkv, t->norm1.h, w_act(c, SELF_Q_W), w_act(c, SELF_Q_B), c->qkv);
    self_attend(c, cos_sin, attended, t, arena);
    be->linear_forward(be, t->self.projected, t->self.out, w_act(c, SELF_O_W), w_act(c, SELF_O_B),
                       c->square);
    /* with each residual comes the norm that the next part reads */
    be->gate_norm_forward(be, t->x_self, t->norm3.h, t->norm3.mean, t->norm3.rstd, t->x,
                          t->self.projected, chunk(c, t->modulation, GATE1), c->modulated.stride,
                          w_f32(c, NORM3_W), w_f32(c, NORM3_B), c->affine);
}

static void cross_attention_forward(const struct BlockContext *c, const Act *context, bool attended,
                                    struct BlockTape *t) {
    const struct Backend *be = c->be;
    be->linear_forward(be, t->cross.q_raw, t->norm3.h, w_act(c, CROSS_Q_W), w_act(c, CROSS_Q_B),
                       c->square);
    be->linear_forward(be, t->cross.kv, context, w_act(c, CROSS_K_W), w_act(c, CROSS_K_B), c->kv);
    const Act *k = t->cross.kv, *v = act_at(be, k, c->dim);
    be->qk_norm_forward(be, t->cross.q, t->cross.rstd_q, t->cross.q_raw, w_f32(c, CROSS_NORM_Q), NULL,
                        c->q_cross);
    be->qk_norm_forward(be, t->cross.k, t->cross.rstd_k, k, w_f32(c, CROSS_NORM_K), NULL, c->k_cross);
    if (!attended)
        be->attention_forward(be, t->cross.out, t->cross.lse, t->cross.q, t->cross.k, v, c->cross);
    /* the norm's output is not needed any more by forward, so its projection may wait in ffn_out */
    be->linear_forward(be, t->ffn_out, t->cross.out, w_act(c, CROSS_O_W), w_act(c, CROSS_O_B),
                       c->square);
    be->gate_norm_forward(be, t->x_cross, t->norm2.h, t->norm2.mean, t->norm2.rstd, t->x_self,
                          t->ffn_out, NULL, 0, chunk(c, t->modulation, SCALE2),
                          chunk(c, t->modulation, SHIFT2), c->modulated);
}

static void ffn_forward(const struct BlockContext *c, Act *x_out, struct BlockTape *t) {
    const struct Backend *be = c->be;
    be->linear_gelu_forward(be, t->ffn_hidden, t->ffn_pre, t->norm2.h, w_act(c, FFN_0_W),
                            w_act(c, FFN_0_B), c->up);
    be->linear_forward(be, t->ffn_out, t->ffn_hidden, w_act(c, FFN_2_W), w_act(c, FFN_2_B), c->down);
    if (x_out)
        be->gate_forward(be, x_out, t->x_cross, t->ffn_out, chunk(c, t->modulation, GATE2),
                         c->modulated);
}

/* From tape->x and, if `attended`, the results of the attentions to all of the tape, and to x_out
 * unless that is NULL. */
static void block_compute(const struct BlockContext *c, const struct BlockPass *pass, bool attended,
                          Act *x_out, struct BlockTape *tape, struct Arena *arena) {
    unit_acquire(c->w, unit_of_block(c->block));
    c->be->rows_add(c->be, tape->modulation, pass->e0, MODULATION_CHUNKS * c->dim,
                    w_f32(c, BLOCK_MODULATION), pass->batch, MODULATION_CHUNKS * c->dim);
    self_attention_forward(c, pass->cos_sin, attended, tape, arena);
    cross_attention_forward(c, pass->context, attended, tape);
    ffn_forward(c, x_out, tape);
    unit_release(c->w, unit_of_block(c->block));
}

void wan_block_forward(const struct BlockPass *pass, int64_t block, Act *x_out, const Act *x,
                       struct Arena *arena, struct BlockTape *tape) {
    struct BlockContext c = block_context(pass, block);
    tape->x = x;
    attended_alloc(&c, arena, tape);
    rest_alloc(&c, arena, x_out == x ? x_out : NULL, tape);
    block_compute(&c, pass, false, x_out, tape, arena);
}

void wan_block_again(const struct BlockPass *pass, int64_t block, const struct BlockTape *kept,
                     bool attended, struct Arena *arena, struct BlockTape *tape) {
    struct BlockContext c = block_context(pass, block);
    *tape = *kept;
    if (!attended) attended_alloc(&c, arena, tape);
    rest_alloc(&c, arena, NULL, tape);
    block_compute(&c, pass, attended, NULL, tape, arena);
}

/* y = x W^T + b on the way back: parameter gradients where there are any. */
static void linear_params(const struct BlockContext *c, enum BlockParam w, enum BlockParam b,
                          const Act *x, const Act *dy, struct LinearShape shape) {
    if (c->w->trained)
        c->be->linear_backward_params(c->be, w_grad(c, w), w_grad(c, b), x, dy, shape);
}

static void ffn_backward(const struct BlockContext *c, Act *dx, float *dmodulation,
                         const struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t mark = arena_mark(arena);
    Act *dout = arena_act(arena, c->rows * c->dim), *dpre = arena_act(arena, c->rows * c->up.n_out);
    be->gate_backward(be, dout, chunk(c, dmodulation, GATE2), dx, t->ffn_out,
                      chunk(c, t->modulation, GATE2), c->modulated);
    linear_params(c, FFN_2_W, FFN_2_B, t->ffn_hidden, dout, c->down);
    be->linear_gelu_backward_input(be, dpre, dout, w_act(c, FFN_2_W), t->ffn_pre, c->down);
    linear_params(c, FFN_0_W, FFN_0_B, t->norm2.h, dpre, c->up);
    be->linear_backward_input(be, dout, dpre, w_act(c, FFN_0_W), c->up, false);
    be->layer_norm_backward(be, dx, chunk(c, dmodulation, SCALE2), chunk(c, dmodulation, SHIFT2), dout,
                            t->x_cross, t->norm2.mean, t->norm2.rstd, chunk(c, t->modulation, SCALE2),
                            c->modulated, true);
    arena_release(arena, mark);
}

static void cross_attention_backward(const struct BlockContext *c, Act *dx, const Act *context,
                                     Act *dcontext, const struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t mark = arena_mark(arena), n = c->rows * c->dim;
    Act *dout = arena_act(arena, n), *dq = arena_act(arena, n), *dq_raw = arena_act(arena, n);
    bool text = dcontext || c->w->trained; /* a frozen block needs nothing of its text's side */
    Act *dk = text ? arena_act(arena, c->text_rows * c->dim) : NULL;
    Act *dkv = text ? arena_act(arena, 2 * c->text_rows * c->dim) : NULL;
    const Act *v = act_at(be, t->cross.kv, c->dim);

    linear_params(c, CROSS_O_W, CROSS_O_B, t->cross.out, dx, c->square);
    be->linear_backward_input(be, dout, dx, w_act(c, CROSS_O_W), c->square, false);
    be->attention_backward(be, dq, dk, text ? act_at(be, dkv, c->dim) : NULL, dout, t->cross.out,
                           t->cross.lse, t->cross.q, t->cross.k, v, c->cross);
    if (text) {
        be->qk_norm_backward(be, dkv, w_grad(c, CROSS_NORM_K), dk, t->cross.kv, t->cross.rstd_k,
                             w_f32(c, CROSS_NORM_K), NULL, c->k_cross);
        linear_params(c, CROSS_K_W, CROSS_K_B, context, dkv, c->kv);
        if (dcontext) be->linear_backward_input(be, dcontext, dkv, w_act(c, CROSS_K_W), c->kv, true);
    }
    be->qk_norm_backward(be, dq_raw, w_grad(c, CROSS_NORM_Q), dq, t->cross.q_raw, t->cross.rstd_q,
                         w_f32(c, CROSS_NORM_Q), NULL, c->q_cross);
    linear_params(c, CROSS_Q_W, CROSS_Q_B, t->norm3.h, dq_raw, c->square);
    be->linear_backward_input(be, dout, dq_raw, w_act(c, CROSS_Q_W), c->square, false);
    be->layer_norm_backward(be, dx, w_grad(c, NORM3_W), w_grad(c, NORM3_B), dout, t->x_self,
                            t->norm3.mean, t->norm3.rstd, w_f32(c, NORM3_W), c->affine, true);
    arena_release(arena, mark);
}

/* From the gradient of `out` to those of q and k (after the norms) and v; the latter strided as v is. */
static void self_attend_backward(const struct BlockContext *c, Act *dq, Act *dk, Act *dv, Act *dout,
                                 const struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    if (!c->split) {
        be->attention_backward(be, dq, dk, dv, dout, t->self.of_heads, t->self.lse, t->self.q,
                               t->self.k, t->self.v, c->self);
        return;
    }
    int64_t mark = arena_mark(arena), slice = c->self.o_stride;
    Act *dof_heads = arena_act(arena, heads_elems(c)), *dheads = arena_act(arena, 3 * heads_elems(c));
    token_split_to_heads(c->split, dof_heads, &(struct TokenStream){dout, c->dim}, 1, c->self.batch,
                         c->dim, arena);
    be->attention_backward(be, dheads, act_at(be, dheads, slice), act_at(be, dheads, 2 * slice),
                           dof_heads, t->self.of_heads, t->self.lse, t->self.q, t->self.k, t->self.v,
                           c->self);
    const struct TokenStream dqkv[] = {{dq, c->dim}, {dk, c->dim}, {dv, 3 * c->dim}};
    token_split_to_tokens(c->split, dqkv, 3, dheads, c->self.batch, c->dim, arena);
    arena_release(arena, mark);
}

static void self_attention_backward(const struct BlockContext *c, const float *cos_sin, Act *dx,
                                    float *dmodulation, const struct BlockTape *t,
                                    struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t mark = arena_mark(arena), n = c->rows * c->dim;
    Act *dprojected = arena_act(arena, n), *dout = arena_act(arena, n);
    Act *dq = arena_act(arena, n), *dk = arena_act(arena, n), *dqkv = arena_act(arena, 3 * n);
    const Act *q = t->self.qkv, *k = act_at(be, q, c->dim);

    be->gate_backward(be, dprojected, chunk(c, dmodulation, GATE1), dx, t->self.projected,
                      chunk(c, t->modulation, GATE1), c->modulated);
    linear_params(c, SELF_O_W, SELF_O_B, t->self.out, dprojected, c->square);
    be->linear_backward_input(be, dout, dprojected, w_act(c, SELF_O_W), c->square, false);
    self_attend_backward(c, dq, dk, act_at(be, dqkv, 2 * c->dim), dout, t, arena);
    be->qk_norm_backward(be, dqkv, w_grad(c, SELF_NORM_Q), dq, q, t->self.rstd_q,
                         w_f32(c, SELF_NORM_Q), cos_sin, c->qk_self);
    be->qk_norm_backward(be, act_at(be, dqkv, c->dim), w_grad(c, SELF_NORM_K), dk, k, t->self.rstd_k,
                         w_f32(c, SELF_NORM_K), cos_sin, c->qk_self);
    linear_params(c, SELF_Q_W, SELF_Q_B, t->norm1.h, dqkv, c->qkv);
    be->linear_backward_input(be, dout, dqkv, w_act(c, SELF_Q_W), c->qkv, false);
    be->layer_norm_backward(be, dx, chunk(c, dmodulation, SCALE1), chunk(c, dmodulation, SHIFT1), dout,
                            t->x, t->norm1.mean, t->norm1.rstd, chunk(c, t->modulation, SCALE1),
                            c->modulated, true);
    arena_release(arena, mark);
}

void wan_block_backward(const struct BlockPass *pass, int64_t block, Act *dx,
                        const struct BlockTape *tape, struct BlockPassGradients want,
                        struct Arena *arena) {
    struct BlockContext c = block_context(pass, block);
    int64_t mark = arena_mark(arena), n_modulation = pass->batch * MODULATION_CHUNKS * c.dim;
    bool modulated = c.w->trained || want.de0;
    float *dmodulation = modulated ? arena_f32(arena, n_modulation) : NULL;
    unit_acquire_backward(c.w, unit_of_block(block));
    if (modulated) c.be->zero(c.be, dmodulation, n_modulation * (int64_t)sizeof(float));

    ffn_backward(&c, dx, dmodulation, tape, arena);
    cross_attention_backward(&c, dx, pass->context, want.dcontext, tape, arena);
    self_attention_backward(&c, pass->cos_sin, dx, dmodulation, tape, arena);

    if (modulated)
        c.be->rows_add_backward(c.be, want.de0, MODULATION_CHUNKS * c.dim, w_grad(&c, BLOCK_MODULATION),
                                dmodulation, pass->batch, MODULATION_CHUNKS * c.dim);
    unit_release(c.w, unit_of_block(block));
    arena_release(arena, mark);
}
