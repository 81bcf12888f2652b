/* The parameters of a Wan2.1 text-to-video DiT and of the student made from it, by index.
 *
 * Names are the original checkpoint's (27 tensors per block and 15 others).  The order is ours: tensors
 * that one matrix product serves together lie side by side (q, k, v of self-attention; k, v of
 * cross-attention).  Units: "embeddings", "blocks.0" ... , "head", and for a student "flow_head". */
#ifndef TMD_WAN_PARAMS_H
#define TMD_WAN_PARAMS_H

#include "model/model_config.h"
#include "model/weights.h"

/* Indices of the first unit's tensors. */
enum EmbeddingParam {
    PATCH_W, PATCH_B,
    TEXT_0_W, TEXT_0_B, TEXT_2_W, TEXT_2_B,
    TIME_0_W, TIME_0_B, TIME_2_W, TIME_2_B,
    TIME_PROJECTION_W, TIME_PROJECTION_B,
    EMBEDDING_PARAMS
};

/* A block's tensors, relative to the block's first. */
enum BlockParam {
    BLOCK_MODULATION,
    SELF_Q_W, SELF_K_W, SELF_V_W, SELF_Q_B, SELF_K_B, SELF_V_B, SELF_O_W, SELF_O_B,
    SELF_NORM_Q, SELF_NORM_K,
    NORM3_W, NORM3_B,
    CROSS_Q_W, CROSS_Q_B, CROSS_K_W, CROSS_V_W, CROSS_K_B, CROSS_V_B, CROSS_O_W, CROSS_O_B,
    CROSS_NORM_Q, CROSS_NORM_K,
    FFN_0_W, FFN_0_B, FFN_2_W, FFN_2_B,
    BLOCK_PARAMS
};

enum HeadParam { HEAD_MODULATION, HEAD_W, HEAD_B, HEAD_PARAMS };

/* The student's own, relative to the first of unit "flow_head".  DELTA_* comes first in the same order
 * as TIME_*; then the tensors of one of the two fusions. */
enum FlowHeadParam {
    DELTA_0_W, DELTA_0_B, DELTA_2_W, DELTA_2_B,
    FUSION_FIRST,
    FUSION_MODULATION = FUSION_FIRST, FUSION_FFN_0_W, FUSION_FFN_0_B, FUSION_FFN_2_W, FUSION_FFN_2_B,
    FUSION_GATE,
    FUSION_PROJ_W = FUSION_FIRST, FUSION_PROJ_B
};

enum { UNIT_EMBEDDINGS = 0 };
static inline int unit_of_block(int64_t block) {
    return 1 + (int)block;
}
static inline int unit_head(const struct ModelConfig *config) {
    return 1 + (int)config->num_layers;
}
static inline int unit_flow_head(const struct ModelConfig *config) {
    return 2 + (int)config->num_layers;
}

static inline int block_param(int64_t block, enum BlockParam which) {
    return EMBEDDING_PARAMS + (int)block * BLOCK_PARAMS + (int)which;
}
static inline int head_param(const struct ModelConfig *config, enum HeadParam which) {
    return block_param(config->num_layers, 0) + (int)which;
}
static inline int flow_head_param(const struct ModelConfig *config, enum FlowHeadParam which) {
    return head_param(config, HEAD_PARAMS) + (int)which;
}

/* Tensors of teacher and fake score.  Initial values: those of Wan2.1's own training code. */
void wan_params(struct ParamTable *table, const struct ModelConfig *config);
/* The teacher's tensors, then (head_blocks > 0) the flow head's own.  The latter start so that an
 * untrained student nearly repeats the teacher: the last layer of delta_embedding is 0, the gate of
 * the gated fusion nearly shut (student.fusion_gate_init), the concat fusion the identity on m plus
 * a small normal matrix on h. */
void student_params(struct ParamTable *table, const struct ModelConfig *config,
                    const struct StudentConfig *student);

#endif
