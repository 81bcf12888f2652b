/* One block of the DiT, forward and backward:
 *
 *     h = norm(x) (1 + scale1) + shift1;   x += self_attention(h) gate1
 *     h = norm3(x);                        x += cross_attention(h, context)
 *     h = norm(x) (1 + scale2) + shift2;   x += ffn(h) gate2
 *
 * (shift1, scale1, gate1, shift2, scale2, gate2) = modulation + projected time, [6, D] per sample.
 * Source: Wan2.1's WanAttentionBlock; numerics as in Wan Team, "Wan: Open and Advanced Large-Scale Video
 * Generative Models", arXiv 2503.20314. */
#ifndef TMD_WAN_BLOCK_H
#define TMD_WAN_BLOCK_H

#include "model/token_split.h"
#include "model/wan_params.h"

/* What all blocks of one pass share; x is [batch, tokens, dim]. */
struct BlockPass {
    const struct ModelConfig *config;
    const struct Weights *weights;
    int64_t batch, tokens;
    const struct TokenSplit *split; /* these tokens are one part of it; NULL: they are all */
    const float *cos_sin;           /* [tokens, head_dim / 2, 2] */
    const float *e0;      /* projected time [batch, 6, dim] */
    const Act *context;   /* embedded text [batch, text_len, dim] */
};

/* Where a block's backward leaves gradients besides dx.  NULL: not wanted, as in a frozen network. */
struct BlockPassGradients {
    float *de0;    /* [batch, 6, dim], accumulates */
    Act *dcontext; /* [batch, text_len, dim], accumulates */
};

/* A layer norm's output, and its statistics. */
struct BlockNorm {
    Act *h;
    float *mean, *rstd;
};

/* What forward saves for backward, all but x in the arena.  The outputs of both attentions, `out`
 * and `lse` (and `of_heads`), lie first, so that they can be kept alone (KEEP_ATTENTION).
 *
 * A recomputed tape holds less: of the norms only their statistics, and of a frozen block nothing
 * that only parameter gradients read.  Its norms, and then its backward, share the buffer `room`.
 * It is the last thing in the arena, and backward gives it back part by part: the feed-forward part
 * from the mark `ffn_starts` on, then cross-attention's from `cross_starts` on.
 *
 * When tokens are split over ranks (token_split.h), q, k, v and of_heads are those of all tokens
 * and of this rank's heads, while `out` has this rank's tokens and all heads.  Otherwise of_heads
 * is `out`. */
struct BlockTape {
    const Act *x;
    int64_t attended, cross_starts, ffn_starts; /* marks of the arena */
    Act *x_self, *x_cross; /* after each residual */
    float *modulation;     /* [batch, 6, dim] */
    float *dmodulation;    /* the same, for backward; NULL in a frozen block */
    Act *room;             /* [rows, dim]; NULL: the tape is whole */
    struct BlockNorm norm1, norm3, norm2;
    struct {
        Act *qkv; /* [rows, 3 dim] before the norms */
        Act *q, *k, *v; /* what attention reads, rows apart as its shape says */
        Act *of_heads, *out, *projected;
        float *rstd_q, *rstd_k, *lse;
    } self;
    struct {
        Act *q_raw, *kv; /* kv [batch text_len, 2 dim] before the norm */
        Act *q, *k, *out;
        float *rstd_q, *rstd_k, *lse;
    } cross;
    Act *ffn_pre, *ffn_hidden, *ffn_out;
};

/* x_out, x [batch, tokens, dim]; the tape keeps everything. */
void wan_block_forward(const struct BlockPass *pass, int64_t block, Act *x_out, const Act *x,
                       struct Arena *arena, struct BlockTape *tape);

/* The same, but the tape keeps the outputs of the attentions only; x_out may be x. */
void wan_block_forward_lean(const struct BlockPass *pass, int64_t block, Act *x_out, const Act *x,
                    struct Arena *arena, struct BlockTape *tape);

/* Computes the block again from x: a tape for backward and, unless it is NULL, x_out; the same
 * bits.  With `attended`, the outputs of the attentions are taken from `kept` instead.  `room`
 * [batch, tokens, dim] may serve several tapes, and must last until the last one's backward. */
void wan_block_recompute(const struct BlockPass *pass, int64_t block, const struct BlockTape *kept,
                     bool attended, Act *x_out, const Act *x, Act *room, struct Arena *arena,
                     struct BlockTape *tape);

/* dx: in, the gradient of x_out; out, that of x.  Parameter gradients accumulate unless the weights
 * are frozen.  Overwrites the tape.  What it takes from the arena it gives back, and with a
 * recomputed tape also the cross-attention and feed-forward parts of that. */
void wan_block_backward(const struct BlockPass *pass, int64_t block, Act *dx,
                        const struct BlockTape *tape, struct BlockPassGradients want,
                        struct Arena *arena);

#endif
