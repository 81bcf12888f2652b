/* Each tensor is filled from a hash of its name, so that a tensor in the wrong place is seen. */
#include "wan_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/checkpoint_model.h"
#include "data/safetensors_writer.h"
#include "data/wan_config.h"
#include "scratch.h"

const struct ModelConfig wan_tiny = {
    .dim = 128,
    .ffn_dim = 40,
    .num_heads = 1,
    .num_layers = 2,
    .freq_dim = 16,
    .text_dim = 12,
    .text_len = 512,
    .in_dim = 4,
    .out_dim = 4,
    .patch_size = {1, 2, 2},
    .eps = 1e-6,
};

int64_t wan_count_elems(int n_dims, const int64_t *shape) {
    int64_t n = 1;
    for (int d = 0; d < n_dims; d++) n *= shape[d];
    return n;
}

void wan_fill(float *out, const char *name, int64_t n_elems) {
    uint32_t bits = 2166136261u;
    for (const char *c = name; *c; c++) bits = (bits ^ (unsigned char)*c) * 16777619u;
    for (int64_t i = 0; i < n_elems; i++) {
        bits = bits * 1664525u + 1013904223u;
        out[i] = ((float)(bits >> 24) - 128.0f) / 64.0f;
    }
}

static bool is(const char *name, const char *wanted) {
    return wanted && strcmp(name, wanted) == 0;
}

/* Name and shape under which tensor i goes into the file. */
static struct WanTensor stored_tensor(const struct WanForm *form, int64_t i) {
    struct WanTensor tensor = wan_layout_tensor(&wan_tiny, form->layout, i);
    const struct WanTensor ours = wan_layout_tensor(&wan_tiny, WAN_ORIGINAL, i);
    char *name = xprintf("%s%s", form->prefix, is(ours.name, form->renamed) ? "odd" : tensor.name);
    snprintf(tensor.name, sizeof tensor.name, "%s", name);
    free(name);
    if (form->flat_patch && tensor.n_dims == 5) {
        tensor.shape[1] *= tensor.shape[2] * tensor.shape[3] * tensor.shape[4];
        tensor.n_dims = 2;
    }
    if (is(ours.name, form->misshapen)) tensor.shape[0]++;
    return tensor;
}

void wan_write_model(const char *folder, const struct WanForm *form) {
    char *path = scratch_path(folder, SAFETENSORS_WAN_STEM ".safetensors");
    struct SafetensorsWriter *w =
        form->max_shard_bytes
            ? safetensors_writer_new_sharded(folder, SAFETENSORS_WAN_STEM, form->max_shard_bytes)
            : safetensors_writer_new(path);
    struct Error err;
    float *data = xmalloc(2 * WAN_TINY_MAX_ELEMS * sizeof *data);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < wan_layout_count(&wan_tiny); i++) {
            const struct WanTensor ours = wan_layout_tensor(&wan_tiny, WAN_ORIGINAL, i);
            const struct WanTensor stored = stored_tensor(form, i);
            if (is(ours.name, form->left_out)) continue;
            wan_fill(data, ours.name, wan_count_elems(stored.n_dims, stored.shape));
            if (is(ours.name, form->nan)) data[3] = NAN;
            if (pass == 0)
                safetensors_writer_declare(w, stored.name, form->dtype, stored.n_dims,
                                           stored.shape);
            else
                assert_true(safetensors_write_f32(w, stored.name, data, &err));
        }
    }
    free(data);
    if (!safetensors_writer_commit(w, &err)) fail_msg("%s", err.text);
    free(path);
    path = scratch_path(folder, "config.json");
    if (form->with_config) assert_true(wan_config_write(path, &wan_tiny, form->layout, &err));
    free(path);
}

void wan_check_checkpoint(const char *path, const char *group) {
    struct Ckpt *ckpt;
    struct Error err;
    int64_t first;
    if (!ckpt_open(path, &ckpt, &err)) fail_msg("%s", err.text);
    assert_int_equal(ckpt_group(ckpt, group, &first), wan_layout_count(&wan_tiny));
    float *found = xmalloc(WAN_TINY_MAX_ELEMS * sizeof *found),
          *expected = xmalloc(WAN_TINY_MAX_ELEMS * sizeof *found);
    for (int64_t i = 0; i < wan_layout_count(&wan_tiny); i++) {
        struct WanTensor tensor = wan_layout_tensor(&wan_tiny, WAN_ORIGINAL, i);
        int64_t n_elems = wan_count_elems(tensor.n_dims, tensor.shape);
        if (!ckpt_read_f32(ckpt, group, tensor.name, tensor.n_dims, tensor.shape, false, found,
                           &err))
            fail_msg("%s", err.text);
        wan_fill(expected, tensor.name, n_elems);
        assert_memory_equal(found, expected, (size_t)n_elems * sizeof *found);
    }
    free(found);
    free(expected);
    struct ModelConfig model;
    assert_true(ckpt_get_model(ckpt, &model, &err));
    assert_memory_equal(&model, &wan_tiny, sizeof wan_tiny);
    ckpt_close(ckpt);
}
