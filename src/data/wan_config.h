/* config.json of a Wan model, in the Wan repository's form and in that of diffusers. */
#ifndef TMD_DATA_WAN_CONFIG_H
#define TMD_DATA_WAN_CONFIG_H

#include "data/wan_layout.h"
#include "error.h"

/* What every Wan2.1 text-to-video model has, and what files leave out. */
#define WAN_DEFAULT_EPS 1e-6
enum {
    WAN_DEFAULT_TEXT_LEN = 512,
    WAN_DEFAULT_TEXT_DIM = 4096,
    WAN_DEFAULT_FREQ_DIM = 256,
    WAN_DEFAULT_HEAD_DIM = 128,
};

/* Reads either form.  Fields that are not ours are passed over; a missing or impossible one, and
 * one that says the model is not text-to-video, is an error that names it. */
bool wan_config_read(const char *path, struct ModelConfig *model, struct Error *err);

/* Writes the form of `layout`; read back, it gives the same sizes. */
bool wan_config_write(const char *path, const struct ModelConfig *model, enum WanLayout layout,
                      struct Error *err);

/* The same as the `model:` section of one of this program's configurations; the caller frees it. */
char *wan_config_to_yaml(const struct ModelConfig *model);

/* Refuses sizes that are not positive or absurdly large, and heads that do not divide the width. */
bool wan_config_check(const struct ModelConfig *model, struct Error *err);

#endif
