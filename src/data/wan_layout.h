/* The tensors of a Wan2.1 text-to-video DiT: names in the two layouts that are in use, and shapes.
 *
 * "Original" is the layout of the Wan repository and of this program; "diffusers" is that of
 * Hugging Face's port.  They differ in names only; norm3 is called norm2 there.  Everything comes
 * from one table (wan_layout.c), so that mapping, counting and checking shapes cannot disagree. */
#ifndef TMD_DATA_WAN_LAYOUT_H
#define TMD_DATA_WAN_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "model/model_config.h"

enum WanLayout { WAN_ORIGINAL, WAN_DIFFUSERS, WAN_LAYOUT_COUNT };
enum { WAN_MAX_NAME = 96, WAN_MAX_DIMS = 5 };

struct WanTensor {
    char name[WAN_MAX_NAME];
    int n_dims;
    int64_t shape[WAN_MAX_DIMS];
};

/* "original", "diffusers" */
const char *wan_layout_name(enum WanLayout layout);

/* How many tensors a model has: 15 + 27 per block. */
int64_t wan_layout_count(const struct ModelConfig *model);
/* Tensor i of the model, 0 <= i < count, under its name in `layout`. */
struct WanTensor wan_layout_tensor(const struct ModelConfig *model, enum WanLayout layout,
                                   int64_t i);

/* Translates one name, of any block number.  False: `from` has no such name. */
bool wan_layout_rename(const char *name, enum WanLayout from, enum WanLayout to,
                       char out[WAN_MAX_NAME]);

/* How a file names its tensors: each begins with `prefix`, which programs that hold the model
 * inside something larger put there. */
struct WanNaming {
    const char *prefix; /* a constant string, often "" */
    enum WanLayout layout;
    int64_t n_known; /* names that are a Wan tensor's once the prefix is off; 0: not a Wan model */
    int64_t n_outside; /* names without the prefix */
};

/* The naming under which most of the names are known. */
struct WanNaming wan_layout_recognise(const char *const *names, int64_t n_names);

#endif
