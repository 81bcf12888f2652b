/* As Wan2.1's configuration files give them. */
#include "wan_sizes.h"

const struct ModelConfig wan_1_3b = {
    .dim = 1536,
    .ffn_dim = 8960,
    .num_heads = 12,
    .num_layers = 30,
    .freq_dim = 256,
    .text_dim = 4096,
    .text_len = 512,
    .in_dim = 16,
    .out_dim = 16,
    .patch_size = {1, 2, 2},
    .eps = 1e-6,
};
const struct ModelConfig wan_14b = {
    .dim = 5120,
    .ffn_dim = 13824,
    .num_heads = 40,
    .num_layers = 40,
    .freq_dim = 256,
    .text_dim = 4096,
    .text_len = 512,
    .in_dim = 16,
    .out_dim = 16,
    .patch_size = {1, 2, 2},
    .eps = 1e-6,
};
