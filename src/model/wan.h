/* The whole DiT, from latents to a velocity: teacher and fake score.
 *
 *     v(x_t, t, c) ~ E[x1 - x | x_t, c],   x_t = (1 - t) x + t x1
 *
 * x is data, x1 noise, t in (0, 1] a time, c the text (flow matching; Lipman et al. 2023).
 * Embeddings (wan_embed.h), a stack of blocks (wan_stack.h), an output head (wan_head.h). */
#ifndef TMD_WAN_H
#define TMD_WAN_H

#include "model/wan_head.h"
#include "model/wan_stack.h"

struct Wan {
    const struct ModelConfig *config;
    const struct Weights *weights;
    const struct WanGeometry *geometry;
};

/* What forward keeps for backward. */
struct WanTape {
    int64_t batch;
    struct PatchTape patch;
    struct TextTape text;
    struct TimeTape time;
    struct ProjectionTape projection;
    struct StackTape stack;
    struct HeadTape head;
    struct BlockPass pass;
    float *e;
};

/* What one evaluation reads. */
struct WanInputs {
    int64_t batch;
    const float *x;        /* [B, in_dim, F, H, W] */
    const double *host_t;  /* [B], host memory */
    const Act *text;       /* [B, text_len, text_dim] */
    const struct IntList *skip_layers; /* or NULL */
};

/* velocity [B, out_dim, F, H, W]; NULL: the pass ends with the last tapped block.  taps may be NULL.
 * With KEEP_NOTHING everything but the outputs is given back to the arena. */
void wan_forward(const struct Wan *wan, struct WanInputs in, float *velocity,
                 const struct Taps *taps, enum Keep keep, struct Arena *arena, struct WanTape *tape);

/* From dvelocity (NULL: none) and the gradients of the taps (NULL: none) to dx [B, in_dim, F, H, W]
 * (overwritten; NULL: not wanted) and, if the weights are trained, to their gradients. `last`: see
 * wan_stack_backward. */
void wan_backward(const struct Wan *wan, float *dx, const float *dvelocity, const struct Taps *dtaps,
                  const struct WanTape *tape, bool last, struct Arena *arena);

#endif
