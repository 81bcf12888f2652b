/* Tables of names, shapes and initial values.
 *
 * Wan starts linear layers uniformly within +-sqrt(6 / (n_in + n_out)) (Xavier), modulations at
 * N(0, 1/sqrt(D)), the output layer and all biases at zero.  Its text and time MLPs start at N(0, 0.02),
 * which for its 4,096-wide text is about 1/sqrt(n_in); we take 1/sqrt(n_in) itself, because in a small
 * model 0.02 leaves text and time so faint that training hardly finds them. */
#include "model/wan_params.h"

#include <math.h>
#include <stdio.h>

#include "error.h"

struct Builder {
    struct ParamTable *table;
    const char *prefix;
};

static void add(struct Builder b, const char *name, int flags, enum ParamInit init, double scale,
                const int64_t shape[PARAM_MAX_DIMS]) {
    char full[PARAM_NAME_MAX];
    int length = snprintf(full, sizeof full, "%s%s", b.prefix, name);
    TMD_CHECK(length > 0 && length < PARAM_NAME_MAX, "parameter name '%s%s' is too long", b.prefix, name);
    params_add(b.table, full, flags, init, scale, shape);
}

static void add_vector(struct Builder b, const char *name, int flags, enum ParamInit init,
                       double value, int64_t n) {
    add(b, name, flags, init, value, (int64_t[PARAM_MAX_DIMS]){n});
}

static void add_matrix(struct Builder b, const char *name, int flags, int64_t n_out, int64_t n_in) {
    add(b, name, flags, INIT_UNIFORM, sqrt(6.0 / (double)(n_in + n_out)),
        (int64_t[PARAM_MAX_DIMS]){n_out, n_in});
}

static void add_normal_matrix(struct Builder b, const char *name, int flags, double deviation,
                              int64_t n_out, int64_t n_in) {
    add(b, name, flags, deviation > 0.0 ? INIT_NORMAL : INIT_ZERO, deviation,
        (int64_t[PARAM_MAX_DIMS]){n_out, n_in});
}

static void add_bias(struct Builder b, const char *name, int flags, int64_t n) {
    add_vector(b, name, flags, INIT_ZERO, 0.0, n);
}

static void add_modulation(struct Builder b, const char *name, int64_t rows, int64_t dim) {
    add(b, name, PARAM_F32, INIT_NORMAL, 1.0 / sqrt((double)dim),
        (int64_t[PARAM_MAX_DIMS]){1, rows, dim});
}

static void add_embeddings(struct ParamTable *table, const struct ModelConfig *c) {
    struct Builder b = {table, ""};
    int64_t volume = model_patch_volume(c);
    params_add_unit(table, "embeddings");
    add(b, "patch_embedding.weight", 0, INIT_UNIFORM, sqrt(6.0 / (double)(c->dim + c->in_dim * volume)),
        (int64_t[PARAM_MAX_DIMS]){c->dim, c->in_dim, c->patch_size[0], c->patch_size[1],
                                  c->patch_size[2]});
    add_bias(b, "patch_embedding.bias", 0, c->dim);
    add_normal_matrix(b, "text_embedding.0.weight", 0, 1.0 / sqrt((double)c->text_dim), c->dim, c->text_dim);
    add_bias(b, "text_embedding.0.bias", 0, c->dim);
    add_normal_matrix(b, "text_embedding.2.weight", 0, 1.0 / sqrt((double)c->dim), c->dim, c->dim);
    add_bias(b, "text_embedding.2.bias", 0, c->dim);
    add_normal_matrix(b, "time_embedding.0.weight", PARAM_F32, 1.0 / sqrt((double)c->freq_dim), c->dim, c->freq_dim);
    add_bias(b, "time_embedding.0.bias", PARAM_F32, c->dim);
    add_normal_matrix(b, "time_embedding.2.weight", PARAM_F32, 1.0 / sqrt((double)c->dim), c->dim, c->dim);
    add_bias(b, "time_embedding.2.bias", PARAM_F32, c->dim);
    add_matrix(b, "time_projection.1.weight", PARAM_F32, 6 * c->dim, c->dim);
    add_bias(b, "time_projection.1.bias", PARAM_F32, 6 * c->dim);
}

static void add_block(struct ParamTable *table, const struct ModelConfig *c, int64_t index) {
    char name[PARAM_NAME_MAX], prefix[PARAM_NAME_MAX];
    snprintf(name, sizeof name, "blocks.%lld", (long long)index);
    snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)index);
    struct Builder b = {table, prefix};
    int64_t d = c->dim;
    params_add_unit(table, name);
    add_modulation(b, "modulation", 6, d);
    add_matrix(b, "self_attn.q.weight", 0, d, d);
    add_matrix(b, "self_attn.k.weight", PARAM_JOINED, d, d);
    add_matrix(b, "self_attn.v.weight", PARAM_JOINED, d, d);
    add_bias(b, "self_attn.q.bias", 0, d);
    add_bias(b, "self_attn.k.bias", PARAM_JOINED, d);
    add_bias(b, "self_attn.v.bias", PARAM_JOINED, d);
    add_matrix(b, "self_attn.o.weight", 0, d, d);
    add_bias(b, "self_attn.o.bias", 0, d);
    add_vector(b, "self_attn.norm_q.weight", PARAM_F32, INIT_CONSTANT, 1.0, d);
    add_vector(b, "self_attn.norm_k.weight", PARAM_F32, INIT_CONSTANT, 1.0, d);
    add_vector(b, "norm3.weight", PARAM_F32, INIT_CONSTANT, 1.0, d);
    add_bias(b, "norm3.bias", PARAM_F32, d);
    add_matrix(b, "cross_attn.q.weight", 0, d, d);
    add_bias(b, "cross_attn.q.bias", 0, d);
    add_matrix(b, "cross_attn.k.weight", 0, d, d);
    add_matrix(b, "cross_attn.v.weight", PARAM_JOINED, d, d);
    add_bias(b, "cross_attn.k.bias", 0, d);
    add_bias(b, "cross_attn.v.bias", PARAM_JOINED, d);
    add_matrix(b, "cross_attn.o.weight", 0, d, d);
    add_bias(b, "cross_attn.o.bias", 0, d);
    add_vector(b, "cross_attn.norm_q.weight", PARAM_F32, INIT_CONSTANT, 1.0, d);
    add_vector(b, "cross_attn.norm_k.weight", PARAM_F32, INIT_CONSTANT, 1.0, d);
    add_matrix(b, "ffn.0.weight", 0, c->ffn_dim, d);
    add_bias(b, "ffn.0.bias", 0, c->ffn_dim);
    add_matrix(b, "ffn.2.weight", 0, d, c->ffn_dim);
    add_bias(b, "ffn.2.bias", 0, d);
}

void wan_params(struct ParamTable *table, const struct ModelConfig *c) {
    *table = (struct ParamTable){0};
    add_embeddings(table, c);
    for (int64_t i = 0; i < c->num_layers; i++) add_block(table, c, i);
    struct Builder b = {table, ""};
    int64_t out = c->out_dim * model_patch_volume(c);
    params_add_unit(table, "head");
    add_modulation(b, "head.modulation", 2, c->dim);
    add_normal_matrix(b, "head.head.weight", 0, 0.0, out, c->dim);
    add_bias(b, "head.head.bias", 0, out);
}

static void add_gated_fusion(struct Builder b, const struct ModelConfig *c, double gate_init) {
    add_modulation(b, "fusion.modulation", 3, c->dim);
    add_matrix(b, "fusion.ffn.0.weight", 0, c->ffn_dim, c->dim);
    add_bias(b, "fusion.ffn.0.bias", 0, c->ffn_dim);
    add_matrix(b, "fusion.ffn.2.weight", 0, c->dim, c->ffn_dim);
    add_bias(b, "fusion.ffn.2.bias", 0, c->dim);
    add_vector(b, "fusion.gate", PARAM_F32, INIT_CONSTANT, gate_init, 1);
}

void student_params(struct ParamTable *table, const struct ModelConfig *c,
                    const struct StudentConfig *student) {
    wan_params(table, c);
    if (!student->head_blocks) return;
    struct Builder b = {table, ""};
    params_add_unit(table, "flow_head");
    add_normal_matrix(b, "delta_embedding.0.weight", PARAM_F32, 0.02, c->dim, c->freq_dim);
    add_bias(b, "delta_embedding.0.bias", PARAM_F32, c->dim);
    add_normal_matrix(b, "delta_embedding.2.weight", PARAM_F32, 0.0, c->dim, c->dim);
    add_bias(b, "delta_embedding.2.bias", PARAM_F32, c->dim);
    if (student->fusion == FUSION_GATED) {
        add_gated_fusion(b, c, student->fusion_gate_init);
    } else {
        add(b, "fusion.proj.weight", 0, INIT_IDENTITY_AND_NORMAL, 0.01,
            (int64_t[PARAM_MAX_DIMS]){c->dim, 2 * c->dim});
        add_bias(b, "fusion.proj.bias", 0, c->dim);
    }
}
