/* What a block's forward (wan_block.c) and backward (wan_block_backward.c) share: the shapes of its
 * operations, its weights, and what both compute. */
#ifndef TMD_WAN_BLOCK_PARTS_H
#define TMD_WAN_BLOCK_PARTS_H

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

struct BlockContext block_context(const struct BlockPass *pass, int64_t block);

static inline const Act *w_act(const struct BlockContext *c, enum BlockParam which) {
    return weight_act(c->w, block_param(c->block, which));
}
static inline const float *w_f32(const struct BlockContext *c, enum BlockParam which) {
    return weight_f32(c->w, block_param(c->block, which));
}
static inline float *w_grad(const struct BlockContext *c, enum BlockParam which) {
    return weight_grad(c->w, block_param(c->block, which));
}

/* Of a tensor of self-attention, with its heads and tokens. */
static inline int64_t heads_elems(const struct BlockContext *c) {
    return c->self.batch * c->self.q_tokens * c->self.heads * c->self.head_dim;
}

/* Chunk `which` of the first sample's modulation; the next sample's is MODULATION_CHUNKS dim on. */
static inline float *chunk(const struct BlockContext *c, float *modulation,
                           enum ModulationChunk which) {
    return modulation ? modulation + which * c->dim : NULL;
}

/* q and k [rows, dim] of self-attention, after their norms, from the raw ones. */
void block_self_norms(const struct BlockContext *c, const float *cos_sin, const struct BlockTape *t,
                      Act *q, Act *k);
/* The same of cross-attention's q. */
void block_cross_norm(const struct BlockContext *c, const struct BlockTape *t, Act *q);
/* The feed-forward part up to its hidden layer: hidden = gelu(pre), of the normed `h`. */
void block_ffn_up(const struct BlockContext *c, Act *hidden, Act *pre, const Act *h);

#endif
