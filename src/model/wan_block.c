/* A block's forward, in three parts: self-attention, cross-attention, feed-forward.  Each part
 * takes its buffers from the arena and leaves there what backward will read. */
#include "model/wan_block_parts.h"

/* How much of what forward computes stays in the tape. */
enum Retain {
    RETAIN_NOTHING,  /* only the outputs of the attentions */
    RETAIN_PRODUCTS, /* whatever takes a matrix product to compute again */
    RETAIN_ALL,
    RETAIN_COUNT
};

/* The shape of self-attention: this rank's tokens (all, if they are not split) with all heads or,
 * if tokens are split, all tokens with this rank's heads, whose q, k and v lie side by side. */
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

struct BlockContext block_context(const struct BlockPass *pass, int64_t block) {
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

/* What all parts use: modulation, sums of residuals, outputs and statistics of norms.  `x`: the
 * residuals are summed there in place; NULL: in buffers of their own. */
static void common_alloc(const struct BlockContext *c, struct Arena *arena, Act *x,
                         struct BlockTape *tape) {
    int64_t n = c->rows * c->dim;
    int64_t n_modulation = c->modulated.batch * MODULATION_CHUNKS * c->dim;
    tape->modulation = arena_f32(arena, n_modulation);
    tape->dmodulation = c->w->trained ? arena_f32(arena, n_modulation) : NULL;
    tape->x_self = x ? x : arena_act(arena, n);
    tape->x_cross = x ? x : arena_act(arena, n);
    Act **h[] = {&tape->norm1.h, &tape->norm3.h, &tape->norm2.h};
    float **stats[] = {&tape->norm1.mean, &tape->norm1.rstd, &tape->norm3.mean,  &tape->norm3.rstd,
                       &tape->norm2.mean, &tape->norm2.rstd, &tape->self.rstd_q, &tape->self.rstd_k,
                       &tape->cross.rstd_q};
    for (int i = 0; i < 3; i++) *h[i] = tape->room ? tape->room : arena_act(arena, n);
    for (int i = 0; i < 9; i++) *stats[i] = arena_f32(arena, c->rows);
}

/* A part takes its buffers from the arena, first those that stay longest, and in the end releases
 * the arena to marks[retain].  This sets marks[how] to here: with `how`, the buffers taken so far
 * stay. */
static void retain_so_far(int64_t marks[RETAIN_COUNT], enum Retain how, const struct Arena *arena) {
    marks[how] = arena_mark(arena);
}

/* q, k and v of all tokens and this rank's heads, for split tokens. */
static void split_heads_alloc(const struct BlockContext *c, struct Arena *arena,
                              struct BlockTape *tape) {
    tape->self.q = arena_act(arena, 3 * heads_elems(c));
    tape->self.k = act_at(c->be, tape->self.q, c->self.o_stride);
    tape->self.v = act_at(c->be, tape->self.q, 2 * c->self.o_stride);
}

static void self_alloc(const struct BlockContext *c, struct Arena *arena,
                       int64_t marks[RETAIN_COUNT], struct BlockTape *tape) {
    int64_t n = c->rows * c->dim;
    retain_so_far(marks, RETAIN_NOTHING, arena);
    tape->self.qkv = arena_act(arena, 3 * n);
    if (c->split) split_heads_alloc(c, arena, tape);
    if (!c->w->trained) retain_so_far(marks, RETAIN_PRODUCTS, arena);
    tape->self.projected = arena_act(arena, n);
    if (c->w->trained) retain_so_far(marks, RETAIN_PRODUCTS, arena);
    if (!c->split) {
        tape->self.q = arena_act(arena, n);
        tape->self.k = arena_act(arena, n);
        tape->self.v = act_at(c->be, tape->self.qkv, 2 * c->dim);
    }
    retain_so_far(marks, RETAIN_ALL, arena);
}

static void cross_alloc(const struct BlockContext *c, struct Arena *arena,
                        int64_t marks[RETAIN_COUNT], struct BlockTape *tape) {
    retain_so_far(marks, RETAIN_NOTHING, arena);
    tape->cross.q_raw = arena_act(arena, c->rows * c->dim);
    tape->cross.kv = arena_act(arena, 2 * c->text_rows * c->dim);
    tape->cross.k = arena_act(arena, c->text_rows * c->dim);
    tape->cross.rstd_k = arena_f32(arena, c->text_rows);
    retain_so_far(marks, RETAIN_PRODUCTS, arena);
    tape->cross.q = arena_act(arena, c->rows * c->dim);
    retain_so_far(marks, RETAIN_ALL, arena);
}

static void ffn_alloc(const struct BlockContext *c, struct Arena *arena,
                      int64_t marks[RETAIN_COUNT], struct BlockTape *tape) {
    int64_t n_hidden = c->rows * c->up.n_out;
    retain_so_far(marks, RETAIN_NOTHING, arena);
    if (!c->w->trained) retain_so_far(marks, RETAIN_PRODUCTS, arena);
    tape->ffn_pre = arena_act(arena, n_hidden);
    tape->ffn_hidden = arena_act(arena, n_hidden);
    tape->ffn_out = arena_act(arena, c->rows * c->dim);
    if (c->w->trained) retain_so_far(marks, RETAIN_PRODUCTS, arena);
    retain_so_far(marks, RETAIN_ALL, arena);
}

void block_self_norms(const struct BlockContext *c, const float *cos_sin, const struct BlockTape *t,
                      Act *q, Act *k) {
    const struct Backend *be = c->be;
    const Act *raw_q = t->self.qkv, *raw_k = act_at(be, raw_q, c->dim);
    be->qk_norm_forward(be, q, t->self.rstd_q, raw_q, w_f32(c, SELF_NORM_Q), cos_sin, c->qk_self);
    be->qk_norm_forward(be, k, t->self.rstd_k, raw_k, w_f32(c, SELF_NORM_K), cos_sin, c->qk_self);
}

void block_cross_norm(const struct BlockContext *c, const struct BlockTape *t, Act *q) {
    c->be->qk_norm_forward(c->be, q, t->cross.rstd_q, t->cross.q_raw, w_f32(c, CROSS_NORM_Q), NULL,
                           c->q_cross);
}

void block_ffn_up(const struct BlockContext *c, Act *hidden, Act *pre, const Act *h) {
    c->be->linear_gelu_forward(c->be, hidden, pre, h, w_act(c, FFN_0_W), w_act(c, FFN_0_B), c->up);
}

/* From q, k, v as the linear layer gave them, in `qkv`, through norms and attention to `out`. */
static void self_attend(const struct BlockContext *c, const float *cos_sin, bool attended,
                        struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t mark = arena_mark(arena), n = c->rows * c->dim;
    Act *q = c->split ? arena_act(arena, n) : t->self.q;
    Act *k = c->split ? arena_act(arena, n) : t->self.k;
    block_self_norms(c, cos_sin, t, q, k);
    if (c->split) {
        const struct TokenStream qkv[] = {
            {q, c->dim}, {k, c->dim}, {act_at(be, t->self.qkv, 2 * c->dim), 3 * c->dim}};
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
                                   bool attended, enum Retain retain, struct BlockTape *t,
                                   struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t marks[RETAIN_COUNT];
    self_alloc(c, arena, marks, t);
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
    arena_release(arena, marks[retain]);
}

static void cross_attention_forward(const struct BlockContext *c, const Act *context, bool attended,
                                    enum Retain retain, struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t marks[RETAIN_COUNT];
    cross_alloc(c, arena, marks, t);
    Act *projected = arena_act(arena, c->rows * c->dim);
    be->linear_forward(be, t->cross.q_raw, t->norm3.h, w_act(c, CROSS_Q_W), w_act(c, CROSS_Q_B),
                       c->square);
    be->linear_forward(be, t->cross.kv, context, w_act(c, CROSS_K_W), w_act(c, CROSS_K_B), c->kv);
    const Act *k = t->cross.kv, *v = act_at(be, k, c->dim);
    block_cross_norm(c, t, t->cross.q);
    be->qk_norm_forward(be, t->cross.k, t->cross.rstd_k, k, w_f32(c, CROSS_NORM_K), NULL, c->k_cross);
    if (!attended)
        be->attention_forward(be, t->cross.out, t->cross.lse, t->cross.q, t->cross.k, v, c->cross);
    be->linear_forward(be, projected, t->cross.out, w_act(c, CROSS_O_W), w_act(c, CROSS_O_B),
                       c->square);
    be->gate_norm_forward(be, t->x_cross, t->norm2.h, t->norm2.mean, t->norm2.rstd, t->x_self,
                          projected, NULL, 0, chunk(c, t->modulation, SCALE2),
                          chunk(c, t->modulation, SHIFT2), c->modulated);
    arena_release(arena, marks[retain]);
}

static void ffn_forward(const struct BlockContext *c, Act *x_out, enum Retain retain,
                        struct BlockTape *t, struct Arena *arena) {
    const struct Backend *be = c->be;
    int64_t marks[RETAIN_COUNT];
    ffn_alloc(c, arena, marks, t);
    block_ffn_up(c, t->ffn_hidden, t->ffn_pre, t->norm2.h);
    be->linear_forward(be, t->ffn_out, t->ffn_hidden, w_act(c, FFN_2_W), w_act(c, FFN_2_B), c->down);
    if (x_out)
        be->gate_forward(be, x_out, t->x_cross, t->ffn_out, chunk(c, t->modulation, GATE2),
                         c->modulated);
    arena_release(arena, marks[retain]);
}

/* Computes the block from tape->x into the tape and, unless it is NULL, into x_out.  With
 * `attended` the tape has the outputs of the attentions already. */
static void block_compute(const struct BlockContext *c, const struct BlockPass *pass, bool attended,
                          enum Retain retain, Act *x_out, struct BlockTape *tape,
                          struct Arena *arena) {
    common_alloc(c, arena, retain == RETAIN_NOTHING ? x_out : NULL, tape);
    unit_acquire(c->w, unit_of_block(c->block));
    c->be->rows_add(c->be, tape->modulation, pass->e0, MODULATION_CHUNKS * c->dim,
                    w_f32(c, BLOCK_MODULATION), pass->batch, MODULATION_CHUNKS * c->dim);
    self_attention_forward(c, pass->cos_sin, attended, retain, tape, arena);
    tape->cross_starts = arena_mark(arena);
    cross_attention_forward(c, pass->context, attended, retain, tape, arena);
    tape->ffn_starts = arena_mark(arena);
    /* if neither x_out nor a gradient needs the feed-forward part now, its backward computes it */
    if (x_out || c->w->trained) ffn_forward(c, x_out, retain, tape, arena);
    unit_release(c->w, unit_of_block(c->block));
}

void wan_block_forward(const struct BlockPass *pass, int64_t block, Act *x_out, const Act *x,
                       struct Arena *arena, struct BlockTape *tape) {
    struct BlockContext c = block_context(pass, block);
    *tape = (struct BlockTape){.x = x};
    attended_alloc(&c, arena, tape);
    block_compute(&c, pass, false, RETAIN_ALL, x_out, tape, arena);
}

void wan_block_forward_lean(const struct BlockPass *pass, int64_t block, Act *x_out, const Act *x,
                    struct Arena *arena, struct BlockTape *tape) {
    struct BlockContext c = block_context(pass, block);
    *tape = (struct BlockTape){.x = x};
    attended_alloc(&c, arena, tape);
    tape->room = arena_act(arena, c.rows * c.dim);
    block_compute(&c, pass, false, RETAIN_NOTHING, x_out, tape, arena);
    arena_release(arena, tape->attended);
}

void wan_block_recompute(const struct BlockPass *pass, int64_t block, const struct BlockTape *kept,
                     bool attended, Act *x_out, const Act *x, Act *room, struct Arena *arena,
                     struct BlockTape *tape) {
    struct BlockContext c = block_context(pass, block);
    *tape = *kept;
    tape->x = x;
    tape->room = room;
    if (!attended) attended_alloc(&c, arena, tape);
    block_compute(&c, pass, attended, RETAIN_PRODUCTS, x_out, tape, arena);
}
