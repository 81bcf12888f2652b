/* Hands a model of a checkpoint back to the world of Wan programs.
 *
 * The folder that comes out holds
 *   diffusion_pytorch_model.safetensors, or shards with an index: the weights shared with Wan
 *   config.json, of the same layout
 *   tmd_flow_head.safetensors, of a student: its own tensors (delta_embedding.*, fusion.*), which
 *   no other program knows, and in the metadata how to sample from it:
 *     tmd_outer_steps, tmd_inner_steps, tmd_head_blocks    M, N, H
 *     tmd_outer_shift, tmd_inner_shift, tmd_t_max, tmd_fusion
 *     tmd_outer_grid    [t_0 = 0, ..., t_M = t_max], t_j = g (j/M) / ((g - 1) j/M + 1)
 *     tmd_inner_grid    [s_0 = 0, ..., s_N = t_max], the same with N and the inner shift
 *     tmd_time_scale    1000: the model's time per unit of t
 *     tmd_guidance      1: none, it is distilled in
 * A baseline student (H = 0) has no tensors of its own; the last file then holds only metadata.
 * The folder appears whole or not at all.
 *
 * Grids: Transition Matching Distillation, arXiv 2601.09881. */
#ifndef TMD_DATA_WAN_EXPORT_H
#define TMD_DATA_WAN_EXPORT_H

#include "data/checkpoint.h"
#include "data/wan_layout.h"
#include "dtype.h"

#define WAN_FLOW_HEAD_FILE "tmd_flow_head.safetensors"

struct WanExportOptions {
    const char *role; /* "student", "teacher": group ROLE/param */
    bool ema;         /* ROLE/ema instead, the averaged weights */
    enum Dtype dtype; /* F32, BF16 or F16; values are rounded to nearest even */
    enum WanLayout layout;
    int64_t max_shard_bytes; /* > 0 */
};

struct WanExportReport {
    int64_t n_shared, n_own,
        n_params; /* tensors shared with Wan; of the student's own; elements of both */
};

/* `folder` must not exist, or be empty.  Values that F16 cannot hold (beyond 65504) are errors. */
bool wan_export(const char *checkpoint, const char *folder, const struct WanExportOptions *options,
                struct WanExportReport *report, struct Error *err);

#endif
