/* Latent videos [B, C, F, H, W] in float32: noise, linear combinations, and patches of them. */
#ifndef TMD_OPS_VIDEO_H
#define TMD_OPS_VIDEO_H

enum { COMBINE_MAX_TERMS = 4 };

/* Patches of (pt, ph, pw) elements; tokens run over (F / pt, H / ph, W / pw), the last fastest. */
struct PatchShape {
    int64_t batch, channels, frames, height, width;
    int64_t patch[3];
    bool channels_last; /* a token vector's order: (c, pt, ph, pw), or (pt, ph, pw, c) when true */
};

/* normal_fill: independent N(0, 1), a function of (seed, stream, first_sample + b, position) only:
 *     elements 4 k .. 4 k + 3 of a sample come from block k of Philox, keyed by seed and counted by
 *     (k, sample, stream), two from each pair of its words by Box and Muller's transform.
 * combine: out[b] = sum_k coef[k B + b] in[k][b]; coef is HOST memory [n_terms, B]; out may be one of
 *     the inputs; an input whose coefficient is 0 is still read. */
#define VIDEO_OPS(OP)                                                                              \
    OP(normal_fill,                                                                                \
       (float *out, uint64_t seed, uint64_t stream, int64_t first_sample, int64_t batch,           \
        int64_t n_per_sample),                                                                     \
       (out, seed, stream, first_sample, batch, n_per_sample))                                     \
    OP(combine,                                                                                    \
       (float *out, int n_terms, const float *const *in, const double *host_coef, int64_t batch,   \
        int64_t n_per_sample),                                                                     \
       (out, n_terms, in, host_coef, batch, n_per_sample))                                         \
    OP(patches_gather, (Act * tokens, const float *video, struct PatchShape shape),                \
       (tokens, video, shape))                                                                     \
    OP(patches_scatter, (float *video, const Act *tokens, struct PatchShape shape),                \
       (video, tokens, shape))                                                                     \
    OP(act_patches_gather, (Act * tokens, const Act *video, struct PatchShape shape),              \
       (tokens, video, shape))                                                                     \
    OP(act_patches_scatter, (Act * video, const Act *tokens, struct PatchShape shape),             \
       (video, tokens, shape))

#endif
