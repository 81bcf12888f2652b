/* The discriminator of stage two: one small network ("head") per tapped block of the frozen
 * teacher, each giving one logit per sample (TMD, arXiv 2601.09881, section on DMD2-v and its
 * ablations; the widths are configuration).
 *
 *     pooled = body(tap)             [B, channels[2]], tap [B, D / (pt ph pw), F, H, W]
 *     logit  = mlp.2(leaky(mlp.0(pooled)))
 *
 * Body `conv3d`, with layers channels[0], channels[1], channels[2], channels[2] wide:
 *     four times:  h = leaky(group_norm(conv3d(h)))
 *         kernels (3,4,4) (3,4,4) (3,3,3) (3,3,3), padding 1
 *         strides (1,2,2) (2,2,2) (2,2,2) (2,2,2)
 *     pooled = mean over positions of h
 * with norms over channels / 4 groups up to 32 channels, over the largest divisor not above 32
 * beyond.
 *
 * Body `separable`: the same, each convolution split into one over rows and columns, kernel
 * (1,kh,kw), which changes the width, and one over frames, kernel (kt,1,1); nothing stands between
 * the two.
 *
 * Body `attention`, S tokens that are the tapped block's own again:
 *     h = layer_norm(tokens)         [B, S, D], with weight and bias
 *     k = h Wk^T,  v = h Wv^T        [B, S, channels[2]]
 *     pooled = softmax(query k^T / sqrt(width of an attention head)) v
 * One learned query for all samples; attention heads as wide as the largest divisor of channels[2]
 * not above 64.  k and v have no biases: softmax does not see one on k, and what one on v would
 * give, the bias of mlp.0 gives.
 *
 * Slope of every leaky ReLU 0.2, eps of every norm 1e-5. */
#ifndef TMD_DISCRIMINATOR_H
#define TMD_DISCRIMINATOR_H

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "model/model_config.h"
#include "model/weights.h"

enum { DISCRIMINATOR_LAYERS = 4, LAYER_MAX_CONVS = 2 };

struct Discriminator {
    const struct Weights *weights;
    struct ModelConfig model; /* of the tapped teacher: dim and patch_size matter */
    struct DiscriminatorConfig config;
};

struct ConvBodyTape {
    struct ConvLayerTape {
        const Act *in[LAYER_MAX_CONVS]; /* the first layer's first: the caller's tap */
        Act *norm_in;
        float *mean, *rstd; /* [B, groups] */
    } layers[DISCRIMINATOR_LAYERS];
};

struct AttentionBodyTape {
    Act *tokens, *normed; /* [B, S, D] */
    float *mean, *rstd;   /* [B, S] */
    Act *kv;              /* [B, S, 2, channels[2]] */
    Act *query, *out;     /* [B, channels[2]] */
    float *lse;           /* [B, heads] */
};

/* What forward leaves for backward: addresses in its arena, not to be released in between. */
struct DiscriminatorTape {
    int64_t batch;
    struct VideoShape shape;
    struct DiscriminatorHeadTape {
        union {
            struct ConvBodyTape conv;
            struct AttentionBodyTape attention;
        };
        float *pooled;               /* [B, channels[2]] */
        float *mlp_pre, *mlp_hidden; /* [B, mlp_dim] */
    } heads[MODEL_MAX_INTS];
};

/* Channels of a tap: a token's values spread over its patch. */
static inline int64_t discriminator_tap_channels(const struct ModelConfig *model) {
    return model->dim / model_patch_volume(model);
}

/* Fills an empty table: one unit per head, tensors
 *     heads.<k>.conv<j>, .norm<j>              conv3d
 *     heads.<k>.conv<j>.space, .time, .norm<j> separable
 *     heads.<k>.norm, .attention.k, .v, .query attention
 *     heads.<k>.mlp.0, .mlp.2                  all
 * Fresh weights and biases are uniform within +-1 / sqrt(fan in), norms 1 and 0; the query is
 * uniform within +-1, for attention's own scale is 1 / sqrt(its fan in). */
void discriminator_params(struct ParamTable *table, const struct ModelConfig *model,
                          const struct DiscriminatorConfig *config);

/* The first of the four layers (from 0) whose convolutions have no output on latents of this shape;
 * -1: none, as always where the heads have no convolutions. */
int discriminator_starved_layer(enum DiscriminatorType type, struct VideoShape shape);

/* logits [B, K], K = number of taps; taps[k] as above with F, H, W the latents' shape, in which no
 * layer starves.  The tape's activations are taken from the arena. */
void discriminator_forward(const struct Discriminator *d, const Act *const taps[], int64_t batch,
                           struct VideoShape shape, float *logits, struct Arena *arena,
                           struct DiscriminatorTape *tape);

/* From dlogits [B, K].  Parameter gradients accumulate if the weights have any (to leave them out,
 * hand over a copy of the weights whose grad is NULL).  dtaps[k], like taps[k], is overwritten, and
 * may be taps[k] itself; NULL, or dtaps NULL: not wanted.  `last`: no further backward of this step follows, so each
 * head's gradient is complete and unit_grad_ready is told.  What it takes from the arena, it gives
 * back. */
void discriminator_backward(const struct Discriminator *d, const float *dlogits,
                            const struct DiscriminatorTape *tape, Act *const dtaps[], bool last,
                            struct Arena *arena);

#endif
