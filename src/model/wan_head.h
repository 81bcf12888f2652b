/* The output head: v = unpatchify(W (norm(x) (1 + scale) + shift) + b), where (shift, scale) = its own
 * modulation [2, D] + the unprojected time vector e; token vectors are ordered (pt, ph, pw, channel). */
#ifndef TMD_WAN_HEAD_H
#define TMD_WAN_HEAD_H

#include "model/wan_embed.h"

struct HeadTape {
    const Act *x;
    float *mean, *rstd, *shift, *scale;
};

/* velocity [B, out_dim, F, H, W] float32; x [B, S, D]; e [B, D]. */
void wan_head_forward(const struct ModelConfig *config, const struct Weights *weights,
                      const struct WanGeometry *geometry, int64_t batch, float *velocity,
                      const Act *x, const float *e, struct Arena *arena, struct HeadTape *tape);
/* dx is overwritten; de accumulates (NULL: not wanted). */
void wan_head_backward(const struct ModelConfig *config, const struct Weights *weights,
                       const struct WanGeometry *geometry, int64_t batch, Act *dx, float *de,
                       const float *dvelocity, const struct HeadTape *tape, struct Arena *arena);

#endif
