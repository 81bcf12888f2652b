/* The discriminator of stage two: one small convolutional network ("head") per tapped block of the
 * frozen teacher, each giving one logit per sample (TMD, arXiv 2601.09881, section on DMD2-v; the
 * channels are configuration).
 *
 *     h = tap                                  [B, D / (pt ph pw), F, H, W]
 *     four times:  h = leaky(group_norm(conv3d(h)))
 *         kernels (3,4,4) (3,4,4) (3,3,3) (3,3,3), padding 1
 *         strides (1,2,2) (2,2,2) (2,2,2) (2,2,2)
 *     logit = mlp.2(leaky(mlp.0(mean over positions of h)))
 *
 * Slope of every leaky ReLU 0.2, eps of every norm 1e-5; norms over channels / 4 groups up to 32
 * channels, over the largest divisor not above 32 beyond. */
#ifndef TMD_DISCRIMINATOR_H
#define TMD_DISCRIMINATOR_H

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "model/model_config.h"
#include "model/params.h"

enum { DISCRIMINATOR_CONVS = 4 };

struct Discriminator {
    const struct Weights *weights;
    struct ModelConfig model; /* of the tapped teacher: dim and patch_size matter */
    struct DiscriminatorConfig config;
};

/* What forward leaves for backward: addresses in its arena, not to be released in between. */
struct DiscriminatorTape {
    int64_t batch;
    struct VideoShape shape;
    struct DiscriminatorHeadTape {
        const Act *conv_in[DISCRIMINATOR_CONVS]; /* [0] is the caller's tap */
        Act *norm_in[DISCRIMINATOR_CONVS];
        float *mean[DISCRIMINATOR_CONVS], *rstd[DISCRIMINATOR_CONVS]; /* [B, groups] */
        float *pooled;                                                /* [B, channels[2]] */
        float *mlp_pre, *mlp_hidden;                                  /* [B, mlp_dim] */
    } heads[MODEL_MAX_INTS];
};

/* Fills an empty table: one unit per head, tensors heads.<k>.conv<j>, .norm<j>, .mlp.0, .mlp.2.
 * Fresh weights and biases are uniform within +-1 / sqrt(fan in), norms 1 and 0. */
void discriminator_params(struct ParamTable *table, const struct ModelConfig *model,
                          const struct DiscriminatorConfig *config);

/* Whether every convolution of a head has an output on latents of this shape. */
bool discriminator_fits(struct VideoShape shape);

/* The convolutions of a head; the input of the first is the tap.  The shape must fit. */
void discriminator_conv_shapes(struct ConvShape convs[DISCRIMINATOR_CONVS],
                               const struct ModelConfig *model,
                               const struct DiscriminatorConfig *config, int64_t batch,
                               struct VideoShape shape);

/* logits [B, K], K = number of taps; taps[k] as above with F, H, W the latents' shape.  The tape's
 * activations are taken from the arena. */
void discriminator_forward(const struct Discriminator *d, const Act *const taps[], int64_t batch,
                           struct VideoShape shape, float *logits, struct Arena *arena,
                           struct DiscriminatorTape *tape);

/* From dlogits [B, K].  Parameter gradients accumulate if the weights have any (to leave them out,
 * hand over a copy of the weights whose grad is NULL).  dtaps[k], like taps[k], is overwritten;
 * NULL, or dtaps NULL: not wanted.  `last`: no further backward of this step follows, so each
 * head's gradient is complete and unit_grad_ready is told.  What it takes from the arena, it gives
 * back. */
void discriminator_backward(const struct Discriminator *d, const float *dlogits,
                            const struct DiscriminatorTape *tape, Act *const dtaps[], bool last,
                            struct Arena *arena);

#endif
