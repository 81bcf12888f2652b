/* The sizes and options of the three networks.  Keys of the same names are in the configuration. */
#ifndef TMD_MODEL_CONFIG_H
#define TMD_MODEL_CONFIG_H

#include <stdint.h>

enum { MODEL_MAX_INTS = 64 };

struct IntList {
    int64_t items[MODEL_MAX_INTS];
    int n;
};

/* Wan2.1 text-to-video DiT.  1.3B: 1536, 8960, 12, 30; 14B: 5120, 13824, 40, 40. */
struct ModelConfig {
    int64_t dim, ffn_dim, num_heads, num_layers;
    int64_t freq_dim, text_dim, text_len;
    int64_t in_dim, out_dim;  /* latent channels */
    int64_t patch_size[3];    /* frame, row, column */
    double eps;
};

/* Latent positions that one token covers. */
static inline int64_t model_patch_volume(const struct ModelConfig *model) {
    return model->patch_size[0] * model->patch_size[1] * model->patch_size[2];
}

enum Fusion { FUSION_GATED, FUSION_CONCAT };

struct StudentConfig {
    int64_t head_blocks;  /* H, the last H blocks form the flow head; 0: the DMD2-v baseline */
    int64_t inner_steps;  /* N */
    int64_t outer_steps;  /* M */
    double outer_shift, inner_shift; /* gamma of the two time grids */
    double t_max;         /* t_M and s_N */
    enum Fusion fusion;
    double fusion_gate_init;
};

enum DiscriminatorType {
    DISCRIMINATOR_CONV3D,
    DISCRIMINATOR_SEPARABLE,
    DISCRIMINATOR_ATTENTION,
    DISCRIMINATOR_NONE /* stage two goes without one */
};

struct DiscriminatorConfig {
    enum DiscriminatorType type;
    struct IntList features; /* blocks whose outputs are tapped, one head each, ascending */
    int64_t channels[3];
    int64_t mlp_dim;
};

/* Latent frames, rows, columns of one sample. */
struct VideoShape {
    int64_t frames, height, width;
};

#endif
