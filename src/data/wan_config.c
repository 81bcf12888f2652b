/* One table of sizes with their names in both forms drives reading, writing and checking. */
#include "data/wan_config.h"

#include <stddef.h>
#include <string.h>

#include "data/json_file.h"

/* ---- the sizes ---- */

/* Every whole number of the model, with its name in both forms.  A default stands for an absent
 * field; 0: the field must be there; NULL: the form has no such field. */
static const struct Size {
    size_t offset;
    const char *key[WAN_LAYOUT_COUNT];
    int64_t fallback;
    int64_t max;
} sizes[] = {
    {offsetof(struct ModelConfig, dim), {"dim", NULL}, 0, 1 << 20},
    {offsetof(struct ModelConfig, ffn_dim), {"ffn_dim", "ffn_dim"}, 0, 1 << 20},
    {offsetof(struct ModelConfig, num_heads), {"num_heads", "num_attention_heads"}, 0, 1 << 16},
    {offsetof(struct ModelConfig, num_layers), {"num_layers", "num_layers"}, 0, 1000},
    {offsetof(struct ModelConfig, freq_dim),
     {"freq_dim", "freq_dim"},
     WAN_DEFAULT_FREQ_DIM,
     1 << 20},
    {offsetof(struct ModelConfig, text_dim),
     {"text_dim", "text_dim"},
     WAN_DEFAULT_TEXT_DIM,
     1 << 20},
    {offsetof(struct ModelConfig, text_len),
     {"text_len", "text_len"},
     WAN_DEFAULT_TEXT_LEN,
     1 << 20},
    {offsetof(struct ModelConfig, in_dim), {"in_dim", "in_channels"}, 16, 1 << 16},
    {offsetof(struct ModelConfig, out_dim), {"out_dim", "out_channels"}, 16, 1 << 16},
};
enum { N_SIZES = sizeof sizes / sizeof *sizes };
static const int64_t default_patch[3] = {1, 2, 2};
enum { MAX_PATCH = 256 };

static int64_t *size_in(struct ModelConfig *model, const struct Size *size) {
    return (int64_t *)((char *)model + size->offset);
}

bool wan_config_check(const struct ModelConfig *model, struct Error *err) {
    struct ModelConfig copy = *model;
    for (int i = 0; i < N_SIZES; i++) {
        int64_t value = *size_in(&copy, &sizes[i]);
        if (value < 1 || value > sizes[i].max)
            return error_set(err, "%s must be between 1 and %lld, is %lld",
                             sizes[i].key[WAN_ORIGINAL], (long long)sizes[i].max, (long long)value);
    }
    for (int d = 0; d < 3; d++) {
        if (model->patch_size[d] < 1 || model->patch_size[d] > MAX_PATCH)
            return error_set(err, "patch_size must be between 1 and %d, is %lld", MAX_PATCH,
                             (long long)model->patch_size[d]);
    }
    if (model->dim % model->num_heads != 0)
        return error_set(err, "dim %lld is not a multiple of num_heads %lld", (long long)model->dim,
                         (long long)model->num_heads);
    if (!(model->eps > 0 && model->eps < 1)) return error_set(err, "eps must be between 0 and 1");
    return true;
}

/* ---- reading ---- */

static bool read_size(const json_t *root, const char *key, int64_t fallback, int64_t *out,
                      struct Error *err) {
    const json_t *value = json_object_get(root, key);
    if (!value && fallback > 0) {
        *out = fallback;
        return true;
    }
    if (!value) return error_set(err, "has no '%s'", key);
    if (!json_is_integer(value)) return error_set(err, "'%s' is not a whole number", key);
    *out = json_integer_value(value);
    return true;
}

static bool read_patch_size(const json_t *root, int64_t patch_size[3], struct Error *err) {
    const json_t *list = json_object_get(root, "patch_size");
    memcpy(patch_size, default_patch, sizeof default_patch);
    if (!list) return true;
    for (size_t d = 0; d < 3; d++) {
        const json_t *item = json_array_get(list, d);
        if (json_array_size(list) != 3 || !json_is_integer(item))
            return error_set(err, "'patch_size' is not a list of three whole numbers");
        patch_size[d] = json_integer_value(item);
    }
    return true;
}

/* Other members of the family have other architectures: refuse them rather than misread. */
static bool check_family(const json_t *root, struct Error *err) {
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const char *norm = json_string_value(json_object_get(root, "qk_norm"));
    if (type && strcmp(type, "t2v") != 0)
        return error_set(err, "model_type is not t2v: only text-to-video models can be read");
    if (norm && strcmp(norm, "rms_norm_across_heads") != 0)
        return error_set(err, "qk_norm is not rms_norm_across_heads");
    if (json_is_false(json_object_get(root, "qk_norm"))) return error_set(err, "qk_norm is off");
    if (json_is_false(json_object_get(root, "cross_attn_norm")))
        return error_set(err, "cross_attn_norm is off");
    static const char *const image_keys[] = {"image_dim", "added_kv_proj_dim"};
    for (int i = 0; i < 2; i++) {
        const json_t *value = json_object_get(root, image_keys[i]);
        if (value && !json_is_null(value))
            return error_set(err, "'%s' is set: only text-to-video models can be read",
                             image_keys[i]);
    }
    return true;
}

static bool read_model(const json_t *root, struct ModelConfig *model, struct Error *err) {
    if (!json_is_object(root)) return error_set(err, "is not a JSON object");
    enum WanLayout form =
        json_object_get(root, "num_attention_heads") ? WAN_DIFFUSERS : WAN_ORIGINAL;
    if (!check_family(root, err)) return false;
    for (int i = 0; i < N_SIZES; i++) {
        if (sizes[i].key[form] &&
            !read_size(root, sizes[i].key[form], sizes[i].fallback, size_in(model, &sizes[i]), err))
            return false;
    }
    if (form == WAN_DIFFUSERS) {
        int64_t head_dim = 0;
        if (!read_size(root, "attention_head_dim", WAN_DEFAULT_HEAD_DIM, &head_dim, err))
            return false;
        if (__builtin_mul_overflow(head_dim, model->num_heads, &model->dim))
            return error_set(err, "'attention_head_dim' is too large");
    }
    const json_t *eps = json_object_get(root, "eps");
    if (eps && !json_is_number(eps)) return error_set(err, "'eps' is not a number");
    model->eps = eps ? json_number_value(eps) : WAN_DEFAULT_EPS;
    return read_patch_size(root, model->patch_size, err) && wan_config_check(model, err);
}

bool wan_config_read(const char *path, struct ModelConfig *model, struct Error *err) {
    *model = (struct ModelConfig){0};
    json_t *root = json_file_load(path, err);
    if (!root) return false;
    bool read = read_model(root, model, err) || error_prefix(err, "%s", path);
    json_decref(root);
    return read;
}

/* ---- writing ---- */

static void put_common(json_t *root, const struct ModelConfig *model, enum WanLayout form) {
    struct ModelConfig copy = *model;
    for (int i = 0; i < N_SIZES; i++) {
        if (sizes[i].key[form])
            json_object_set_new(root, sizes[i].key[form], json_integer(*size_in(&copy, &sizes[i])));
    }
    json_object_set_new(root, "eps", json_real(model->eps));
    json_object_set_new(root, "patch_size",
                        json_pack("[I, I, I]", (json_int_t)model->patch_size[0],
                                  (json_int_t)model->patch_size[1],
                                  (json_int_t)model->patch_size[2]));
}

/* The Wan repository's loader takes patch_size and text_dim from its defaults and warns about them
 * in a file; diffusers has no text_len.  So each is written only where it says something. */
static void drop_defaults(json_t *root, const struct ModelConfig *model, enum WanLayout form) {
    if (form == WAN_ORIGINAL) {
        if (memcmp(model->patch_size, default_patch, sizeof default_patch) == 0)
            json_object_del(root, "patch_size");
        if (model->text_dim == WAN_DEFAULT_TEXT_DIM) json_object_del(root, "text_dim");
    } else if (model->text_len == WAN_DEFAULT_TEXT_LEN) {
        json_object_del(root, "text_len");
    }
}

bool wan_config_write(const char *path, const struct ModelConfig *model, enum WanLayout layout,
                      struct Error *err) {
    json_t *root = layout == WAN_ORIGINAL
                       ? json_pack("{s:s, s:s}", "_class_name", "WanModel", "model_type", "t2v")
                       : json_pack("{s:s, s:I, s:b, s:s, s:i, s:n, s:n}", "_class_name",
                                   "WanTransformer3DModel", "attention_head_dim",
                                   (json_int_t)(model->dim / model->num_heads), "cross_attn_norm",
                                   1, "qk_norm", "rms_norm_across_heads", "rope_max_seq_len", 1024,
                                   "added_kv_proj_dim", "image_dim");
    TMD_CHECK(root, "%s cannot be formed", path);
    put_common(root, model, layout);
    drop_defaults(root, model, layout);
    bool written = json_file_save(path, root, err);
    json_decref(root);
    return written;
}

char *wan_config_to_yaml(const struct ModelConfig *model) {
    return xprintf("model:\n"
                   "  dim: %lld\n  ffn_dim: %lld\n  num_heads: %lld\n  num_layers: %lld\n"
                   "  freq_dim: %lld\n  text_dim: %lld\n  text_len: %lld\n"
                   "  in_dim: %lld\n  out_dim: %lld\n"
                   "  patch_size: [%lld, %lld, %lld]\n  eps: %.15g\n",
                   (long long)model->dim, (long long)model->ffn_dim, (long long)model->num_heads,
                   (long long)model->num_layers, (long long)model->freq_dim,
                   (long long)model->text_dim, (long long)model->text_len, (long long)model->in_dim,
                   (long long)model->out_dim, (long long)model->patch_size[0],
                   (long long)model->patch_size[1], (long long)model->patch_size[2], model->eps);
}
