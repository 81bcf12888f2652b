/* The sizes of a Wan model from the shapes of its tensors, for files that come without a
 * config.json. */
#ifndef TMD_DATA_WAN_INFER_H
#define TMD_DATA_WAN_INFER_H

#include "data/safetensors.h"
#include "data/wan_layout.h"

/* The number in the file of the tensor that the original layout calls `name`; -1: none. */
int64_t wan_find_tensor(const struct Safetensors *st, const struct WanNaming *naming,
                        const char *name);

/* What no shape tells is what all Wan2.1 models have: heads of 128, 512 text tokens, patches of 1 x
 * 2 x 2 if the patch embedding is stored flat, eps 1e-6. */
bool wan_infer_model(const struct Safetensors *st, const struct WanNaming *naming,
                     struct ModelConfig *model, struct Error *err);

#endif
