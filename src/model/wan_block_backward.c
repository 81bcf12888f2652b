/* A block's backward, part by part from its end.  A recomputed tape lacks whatever takes no matrix
 * product to compute: each part computes that at its start, in memory that its backward needs
 * anyway. */
#include "model/wan_block_parts.h"

/* y = x W^T + b on the way back: parameter gradients where there are any. */
static void linear_params(const struct BlockContext *c, enum BlockParam w, enum BlockParam b,
                          const Act *x, const Act *dy, struct LinearShape shape) {
    if (c->w->trained)
        c->be->linear_backward_params(c->be, w_grad(c, w), w_grad(c, b), x, dy, shape);
}

/* [rows, dim] for the gradient of what a part reads. */
static Act *part_gradient(const struct BlockContext *c, const struct BlockTape *t,
                          struct Arena *arena) {
    return t->room ? t->room : arena_act(arena, c->rows * c->dim);
}

/* The output of a norm; with a recomputed tape it is computed here, in the tape's room. */
static const Act *normed(const struct BlockContext *c, const struct BlockTape *t,
                         const struct BlockNorm *norm, const Act *x, const float *scale,
                         const float *shift, struct NormShape shape) {
    if (t->room)
        c->be->layer_norm_forward(c->be, norm->h, norm->mean, norm->rstd, x, scale, shift, shape);
    return norm->h;
}

/* What the linear layers of each part read. */
static const Act *self_input(const struct BlockContext *c, const struct BlockTape *t) {
    return normed(c, t, &t->norm1, t->x, chunk(c, t->modulation, SCALE1),
                  chunk(c, t->modulation, SHIFT1), c->modulated);
}
static const Act *cross_input(const struct BlockContext *c, const struct BlockTape *t) {
    return normed(c, t, &t->norm3, t->x_self, w_f32(c, NORM3_W), w_f32(c, NORM3_B), c->affine);
}
static const Act *ffn_input(const struct BlockContext *c, const struct BlockTape *t) {
    return normed(c, t, &t->norm2, t->x_cross, chunk(c, t->modulation, SCALE2),
                  chunk(c, t->modulation, SHIFT2), c->modulated);
}

/* dh of a part's output h, from the gradient dx of x + gate h.  Only the gate's own gradient reads
 * h; a frozen block, which has none, may lack h. */
static void ungate(const struct BlockContext *c, Act *dh, float *dmodulation, const Act *dx,
                   const Act *h, const struct BlockTape *t, enum ModulationChunk gate) {
    c->be->gate_backward(c->be, dh, chunk(c, dmodulation, gate), dx, dmodulation ? h : dx,
                         chunk(c, t->modulation, gate), c->modulated);
}

/* dpre overwrites the hidden layer after its last use. */
static void ffn_backward(const struct BlockContext *c, Act *dx, float *dmodulation,
                         const struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t mark = arena_mark(arena), n_hidden = c->rows * c->up.n_out;
    Act *dout = part_gradient(c, t, arena), *pre = t->ffn_pre, *dpre = t->ffn_hidden;
    if (t->room && !c->w->trained) {
        pre = arena_act(arena, n_hidden);
        dpre = arena_act(arena, n_hidden);
        block_ffn_up(c, dpre, pre, ffn_input(c, t));
    }
    ungate(c, dout, dmodulation, dx, t->ffn_out, t, GATE2);
    linear_params(c, FFN_2_W, FFN_2_B, t->ffn_hidden, dout, c->down);
    be->linear_gelu_backward_input(be, dpre, dout, w_act(c, FFN_2_W), pre, c->down);
    if (c->w->trained) linear_params(c, FFN_0_W, FFN_0_B, ffn_input(c, t), dpre, c->up);
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
    Act *dout = part_gradient(c, t, arena), *q = t->cross.q;
    Act *dq = arena_act(arena, n), *dq_raw = arena_act(arena, n);
    bool text = dcontext || c->w->trained; /* a frozen block needs nothing of its text's side */
    Act *dk = text ? arena_act(arena, c->text_rows * c->dim) : NULL;
    Act *dkv = text ? arena_act(arena, 2 * c->text_rows * c->dim) : NULL;
    const Act *v = act_at(be, t->cross.kv, c->dim);
    if (t->room) block_cross_norm(c, t, q = arena_act(arena, n));

    linear_params(c, CROSS_O_W, CROSS_O_B, t->cross.out, dx, c->square);
    be->linear_backward_input(be, dout, dx, w_act(c, CROSS_O_W), c->square, false);
    be->attention_backward(be, dq, dk, text ? act_at(be, dkv, c->dim) : NULL, dout, t->cross.out,
                           t->cross.lse, q, t->cross.k, v, c->cross);
    if (text) {
        be->qk_norm_backward(be, dkv, w_grad(c, CROSS_NORM_K), dk, t->cross.kv, t->cross.rstd_k,
                             w_f32(c, CROSS_NORM_K), NULL, c->k_cross);
        linear_params(c, CROSS_K_W, CROSS_K_B, context, dkv, c->kv);
        if (dcontext) be->linear_backward_input(be, dcontext, dkv, w_act(c, CROSS_K_W), c->kv, true);
    }
    be->qk_norm_backward(be, dq_raw, w_grad(c, CROSS_NORM_Q), dq, t->cross.q_raw, t->cross.rstd_q,
                         w_f32(c, CROSS_NORM_Q), NULL, c->q_cross);
    if (c->w->trained)
        linear_params(c, CROSS_Q_W, CROSS_Q_B, cross_input(c, t), dq_raw, c->square);
    be->linear_backward_input(be, dout, dq_raw, w_act(c, CROSS_Q_W), c->square, false);
    be->layer_norm_backward(be, dx, w_grad(c, NORM3_W), w_grad(c, NORM3_B), dout, t->x_self,
                            t->norm3.mean, t->norm3.rstd, w_f32(c, NORM3_W), c->affine, true);
    arena_release(arena, mark);
}

/* From the gradient of `out` to those of q and k (after the norms) and v; the latter strided as v is. */
static void self_attend_backward(const struct BlockContext *c, const float *cos_sin, Act *dq, Act *dk,
                                 Act *dv, Act *dout, const struct BlockTape *t,
                                 struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t mark = arena_mark(arena), n = c->rows * c->dim, slice = c->self.o_stride;
    if (!c->split) {
        Act *q = t->self.q, *k = t->self.k;
        if (t->room) block_self_norms(c, cos_sin, t, q = arena_act(arena, n), k = arena_act(arena, n));
        be->attention_backward(be, dq, dk, dv, dout, t->self.of_heads, t->self.lse, q, k, t->self.v,
                               c->self);
        arena_release(arena, mark);
        return;
    }
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
    Act *dprojected = arena_act(arena, n), *dout = part_gradient(c, t, arena);
    Act *dq = arena_act(arena, n), *dk = arena_act(arena, n), *dqkv = arena_act(arena, 3 * n);
    const Act *q = t->self.qkv, *k = act_at(be, q, c->dim);

    ungate(c, dprojected, dmodulation, dx, t->self.projected, t, GATE1);
    linear_params(c, SELF_O_W, SELF_O_B, t->self.out, dprojected, c->square);
    be->linear_backward_input(be, dout, dprojected, w_act(c, SELF_O_W), c->square, false);
    self_attend_backward(c, cos_sin, dq, dk, act_at(be, dqkv, 2 * c->dim), dout, t, arena);
    be->qk_norm_backward(be, dqkv, w_grad(c, SELF_NORM_Q), dq, q, t->self.rstd_q,
                         w_f32(c, SELF_NORM_Q), cos_sin, c->qk_self);
    be->qk_norm_backward(be, act_at(be, dqkv, c->dim), w_grad(c, SELF_NORM_K), dk, k, t->self.rstd_k,
                         w_f32(c, SELF_NORM_K), cos_sin, c->qk_self);
    if (c->w->trained)
        linear_params(c, SELF_Q_W, SELF_Q_B, self_input(c, t), dqkv, c->qkv);
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
    int64_t n_modulation = pass->batch * MODULATION_CHUNKS * c.dim;
    float *dmodulation = tape->dmodulation;
    bool again = tape->room;
    unit_acquire_backward(c.w, unit_of_block(block));
    if (dmodulation) c.be->zero(c.be, dmodulation, n_modulation * (int64_t)sizeof(float));

    ffn_backward(&c, dx, dmodulation, tape, arena);
    if (again) arena_release(arena, tape->ffn_starts);
    cross_attention_backward(&c, dx, pass->context, want.dcontext, tape, arena);
    if (again) arena_release(arena, tape->cross_starts);
    self_attention_backward(&c, pass->cos_sin, dx, dmodulation, tape, arena);

    if (dmodulation)
        c.be->rows_add_backward(c.be, want.de0, MODULATION_CHUNKS * c.dim, w_grad(&c, BLOCK_MODULATION),
                                dmodulation, pass->batch, MODULATION_CHUNKS * c.dim);
    unit_release(c.w, unit_of_block(block));
}
