/* What comes before the blocks: patches, text and time.
 *
 *     tokens  = patch_embedding(x)                          [B, S, D], Act
 *     context = text_embedding.2(gelu(text_embedding.0(c))) [B, L, D], Act; all L rows, zeros too
 *     e       = time_embedding.2(silu(time_embedding.0(sinusoid(1000 t))))  [B, D], float32
 *     e0      = time_projection.1(silu(e))                  [B, 6, D], float32
 *
 * `delta_embedding` of the student is a time MLP too.  Nothing is differentiated with respect to text
 * or times, so a frozen network needs no backward of either. */
#ifndef TMD_WAN_EMBED_H
#define TMD_WAN_EMBED_H

#include "model/token_split.h"
#include "model/wan_params.h"

/* Sizes that follow from the model and the latent's shape, and the rotary table. */
struct WanGeometry {
    struct VideoShape video;
    int64_t grid[3];                /* the product: tokens of a whole sample */
    const struct TokenSplit *split; /* NULL: all of them are computed here */
    int64_t tokens;                 /* of a sample, computed here */
    float *cos_sin;                 /* device [tokens, head_dim / 2, 2] */
};
void wan_geometry_init(struct WanGeometry *geometry, const struct Backend *be,
                       const struct ModelConfig *config, struct VideoShape video);
void wan_geometry_free(struct WanGeometry *geometry, const struct Backend *be);
/* The part of `whole` that `split` names, whose table it borrows: not to be freed.  split->tokens must
 * be those of `whole`; the split must outlive the geometry. */
struct WanGeometry wan_geometry_part(const struct WanGeometry *whole,
                                     const struct ModelConfig *config,
                                     const struct TokenSplit *split);

/* Elements of a batch of latent videos with `channels` channels. */
static inline int64_t video_elems(struct VideoShape v, int64_t channels) {
    return channels * v.frames * v.height * v.width;
}

/* How videos of `channels` channels are cut into tokens. */
struct PatchShape wan_patch_shape(const struct ModelConfig *config, struct VideoShape video,
                                  int64_t batch, int64_t channels, bool channels_last);

struct PatchTape {
    Act *patches; /* [B, S, in_dim pt ph pw] */
};
/* Cuts a video [B, in_dim, F, H, W] into patches, which take little memory compared with their
 * tokens [B, S, D].  So only the patches are kept; patch_embed_forward may be called again to get
 * the tokens. */
void patch_cut(const struct ModelConfig *config, const struct Weights *weights,
               const struct WanGeometry *geometry, int64_t batch, const float *video,
               struct Arena *arena, struct PatchTape *tape);
void patch_embed_forward(const struct ModelConfig *config, const struct Weights *weights,
                         const struct WanGeometry *geometry, int64_t batch, Act *tokens,
                         const struct PatchTape *tape);
/* dvideo [B, in_dim, F, H, W] is overwritten; NULL: not wanted. */
void patch_embed_backward(const struct ModelConfig *config, const struct Weights *weights,
                          const struct WanGeometry *geometry, int64_t batch, float *dvideo,
                          const Act *dtokens, const struct PatchTape *tape, struct Arena *arena);

struct TextTape {
    const Act *text;
    Act *pre, *hidden; /* [B, text_len, D], before and after the GELU */
};
/* context [B, text_len, D] from text [B, text_len, text_dim], which must live until backward. */
void text_embed_forward(const struct ModelConfig *config, const struct Weights *weights,
                        int64_t batch, Act *context, const Act *text, struct Arena *arena,
                        struct TextTape *tape);
void text_embed_backward(const struct ModelConfig *config, const struct Weights *weights,
                         int64_t batch, const Act *dcontext, const struct TextTape *tape,
                         struct Arena *arena);

struct TimeTape {
    float *sinusoid;     /* [B, freq_dim] */
    float *pre, *hidden; /* [B, D], before and after the SiLU */
};
/* e [B, D] from times host_t, host memory [B].  `first_param` says which time MLP: TIME_0_W, or
 * flow_head_param(config, DELTA_0_W). */
void time_embed_forward(const struct ModelConfig *config, const struct Weights *weights,
                        int first_param, int64_t batch, float *e, const double *host_t,
                        struct Arena *arena, struct TimeTape *tape);
void time_embed_backward(const struct ModelConfig *config, const struct Weights *weights,
                         int first_param, int64_t batch, const float *de,
                         const struct TimeTape *tape, struct Arena *arena);

struct ProjectionTape {
    const float *e;
    float *hidden; /* [B, D], silu(e) */
};
/* e0 [B, 6, D] from e [B, D], which must live until backward. */
void time_project_forward(const struct ModelConfig *config, const struct Weights *weights,
                          int64_t batch, float *e0, const float *e, struct Arena *arena,
                          struct ProjectionTape *tape);
/* de accumulates. */
void time_project_backward(const struct ModelConfig *config, const struct Weights *weights,
                           int64_t batch, float *de, const float *de0,
                           const struct ProjectionTape *tape, struct Arena *arena);

#endif
