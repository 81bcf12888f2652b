/* Brings the weights of a Wan2.1 text-to-video model into a checkpoint.
 *
 * Accepted are single files, indexed shards and folders, in the original and the diffusers layout,
 * with the prefixes that are in use, as F32, BF16 or F16 (wan_layout.h); also a patch embedding
 * that is stored as the flat linear layer [dim, in_dim * patch volume], which is the same numbers
 * in the same order. Exactly the tensors that config.json implies must be there, with their shapes
 * and finite values. Without a config.json the sizes are read off the shapes. */
#ifndef TMD_DATA_WAN_IMPORT_H
#define TMD_DATA_WAN_IMPORT_H

#include "data/safetensors.h"
#include "data/wan_layout.h"

/* What was found, for a message to the user. */
struct WanImportReport {
    struct ModelConfig model;
    struct WanNaming naming;
    bool sizes_inferred; /* there was no config.json */
    int64_t n_tensors, n_params;
};

/* `source`: what safetensors_open takes, or a folder that holds such a thing in its subfolder
 * `transformer`.  Writes checkpoint `out_path` with the group teacher/param, float32, the model's
 * sizes and their YAML (CKPT_KEY_CONFIG), iteration 0, stage "import". */
bool wan_import(const char *source, const char *out_path, int zstd_level,
                struct WanImportReport *report, struct Error *err);

#endif
