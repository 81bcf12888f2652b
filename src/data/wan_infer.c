/* Each size is an extent of one tensor that every Wan model has. */
#include "data/wan_infer.h"

#include <stdio.h>
#include <string.h>

#include "data/shape_text.h"
#include "data/wan_config.h"

#define PATCH_WEIGHT "patch_embedding.weight"

int64_t wan_find_tensor(const struct Safetensors *st, const struct WanNaming *naming,
                        const char *name) {
    char renamed[WAN_MAX_NAME], stored[2 * WAN_MAX_NAME];
    if (!wan_layout_rename(name, WAN_ORIGINAL, naming->layout, renamed)) return -1;
    snprintf(stored, sizeof stored, "%s%s", naming->prefix, renamed);
    return safetensors_find(st, stored);
}

/* Extent `axis` of a tensor that must have at least `n_dims` dimensions. */
static bool infer_extent(const struct Safetensors *st, const struct WanNaming *naming,
                         const char *name, int n_dims, int axis, int64_t *out, struct Error *err) {
    int64_t i = wan_find_tensor(st, naming, name);
    if (i < 0)
        return error_set(err, "there is no config.json, and no %s to tell the sizes from", name);
    const struct SafetensorsInfo *info = safetensors_info(st, i);
    if (info->n_dims < n_dims)
        return error_set(err, "there is no config.json, and %s of shape %s does not tell the sizes",
                         name, shape_text(info->n_dims, info->shape).s);
    *out = info->shape[axis];
    return true;
}

/* in_dim and patch_size, from the convolution [dim, in, pt, ph, pw] or the flat layer
 * [dim, in * pt * ph * pw]. */
static bool infer_patch(const struct Safetensors *st, const struct WanNaming *naming,
                        struct ModelConfig *model, struct Error *err) {
    static const int64_t usual[3] = {1, 2, 2};
    if (!infer_extent(st, naming, PATCH_WEIGHT, 2, 1, &model->in_dim, err)) return false;
    const struct SafetensorsInfo *info =
        safetensors_info(st, wan_find_tensor(st, naming, PATCH_WEIGHT));
    if (info->n_dims == WAN_MAX_DIMS) {
        memcpy(model->patch_size, info->shape + 2, sizeof model->patch_size);
    } else {
        memcpy(model->patch_size, usual, sizeof usual);
        model->in_dim /= usual[0] * usual[1] * usual[2];
    }
    return true;
}

/* How many blocks follow each other from 0 on. */
static int64_t count_blocks(const struct Safetensors *st, const struct WanNaming *naming) {
    char name[WAN_MAX_NAME];
    int64_t n = 0;
    for (;; n++) {
        snprintf(name, sizeof name, "blocks.%lld.modulation", (long long)n);
        if (wan_find_tensor(st, naming, name) < 0) return n;
    }
}

bool wan_infer_model(const struct Safetensors *st, const struct WanNaming *naming,
                     struct ModelConfig *model, struct Error *err) {
    int64_t head_rows;
    *model = (struct ModelConfig){.eps = WAN_DEFAULT_EPS, .text_len = WAN_DEFAULT_TEXT_LEN};
    if (!infer_extent(st, naming, PATCH_WEIGHT, 2, 0, &model->dim, err) ||
        !infer_patch(st, naming, model, err) ||
        !infer_extent(st, naming, "blocks.0.ffn.0.weight", 1, 0, &model->ffn_dim, err) ||
        !infer_extent(st, naming, "time_embedding.0.weight", 2, 1, &model->freq_dim, err) ||
        !infer_extent(st, naming, "text_embedding.0.weight", 2, 1, &model->text_dim, err) ||
        !infer_extent(st, naming, "head.head.weight", 1, 0, &head_rows, err))
        return false;
    model->num_layers = count_blocks(st, naming);
    model->num_heads = model->dim / WAN_DEFAULT_HEAD_DIM;
    int64_t patch_volume = 1;
    for (int d = 0; d < 3; d++) {
        if (__builtin_mul_overflow(patch_volume, model->patch_size[d], &patch_volume) ||
            patch_volume < 1)
            return error_set(err, "%s has an impossible patch size", PATCH_WEIGHT);
    }
    model->out_dim = head_rows / patch_volume;
    if (model->dim % WAN_DEFAULT_HEAD_DIM != 0)
        return error_set(
            err, "there is no config.json, and a width of %lld does not tell the number of heads",
            (long long)model->dim);
    return wan_config_check(model, err);
}
