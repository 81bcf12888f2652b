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
    const struct TokenSplit *split; /* of which these tokens are a part; NULL: they are all */
    const float *cos_sin;           /* [tokens, head_dim / 2, 2] */
    const float *e0;      /* projected time [batch, 6, dim] */
    const Act *context;   /* embedded text [batch, text_len, dim] */
};

/* Where a block's backward leaves gradients besides dx; NULL: not wanted. */
struct BlockPassGradients {
    float *de0;    /* [batch, 6, dim], accumulates */
    Act *dcontext; /* [batch, text_len, dim], accumulates */
};

/* What forward saves for backward; all but x in the arena.  The results of both attentions, `out` and
 * `lse` (and `of_heads`), lie first: a caller who releases the arena to the mark `attended` keeps them.
 *
 * Self-attention of tokens that are split reads q, k, v and gives of_heads for all tokens and the own
 * heads; `out` is that of the own tokens again.  Else of_heads is `out`. */
struct BlockTape {
    const Act *x;
    int64_t attended; /* a mark of the arena */
    Act *x_self, *x_cross; /* after each residual */
    float *modulation;     /* [batch, 6, dim] */
    struct {
        Act *h;
        float *mean, *rstd;
    } norm1, norm3, norm2;
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

/* x_out [batch, tokens, dim] may be x itself when the tape is not kept. */
void wan_block_forward(const struct BlockPass *pass, int64_t block, Act *x_out, const Act *x,
                       struct Arena *arena, struct BlockTape *tape);

/* What forward saved, made again from `kept`, a tape of which all but x was released or, with
 * `attended`, all but x and the results of the attentions; the same bits.  x_out is not computed. */
void wan_block_again(const struct BlockPass *pass, int64_t block, const struct BlockTape *kept,
                     bool attended, struct Arena *arena, struct BlockTape *tape);

/* dx: in, the gradient of x_out; out, that of x.  Parameter gradients accumulate if the weights have
 * any.  Temporaries come from the arena and go back. */
void wan_block_backward(const struct BlockPass *pass, int64_t block, Act *dx,
                        const struct BlockTape *tape, struct BlockPassGradients want,
                        struct Arena *arena);

#endif
