/* What all heads of the discriminator have in common: a body, which turns a tap into a vector, and
 * an MLP that turns the vector into a logit.  Forward and backward by hand; the formulas stand in
 * the header. */
#include "model/discriminator.h"

#include <math.h>
#include <stdio.h>

#include "error.h"
#include "model/discriminator_body.h"

static const struct DiscriminatorBody *body_of(enum DiscriminatorType type) {
    static const struct DiscriminatorBody *const bodies[] = {
        [DISCRIMINATOR_CONV3D] = &discriminator_conv_body,
        [DISCRIMINATOR_SEPARABLE] = &discriminator_conv_body,
        [DISCRIMINATOR_ATTENTION] = &discriminator_attention_body,
        [DISCRIMINATOR_NONE] = NULL,
    };
    TMD_CHECK(bodies[type], "a discriminator of type none");
    return bodies[type];
}

/* ---- parameters: a head's tensors are those of its body, then those of its MLP */

enum MlpParam { MLP_IN_WEIGHT, MLP_IN_BIAS, MLP_OUT_WEIGHT, MLP_OUT_BIAS, N_MLP_PARAMS };

static int mlp_param(const struct Discriminator *d, int head, enum MlpParam which) {
    const struct UnitDesc *unit = &d->weights->table->units[head];
    return unit->first_param + unit->n_params - N_MLP_PARAMS + (int)which;
}

void discriminator_add(struct ParamTable *table, const char *head, const char *layer,
                       const char *part, int flags, enum ParamInit init, double scale,
                       const int64_t shape[PARAM_MAX_DIMS]) {
    char name[PARAM_NAME_MAX];
    int length = snprintf(name, sizeof name, "%s.%s.%s", head, layer, part);
    TMD_CHECK(length > 0 && length < PARAM_NAME_MAX, "parameter name '%s' is too long", name);
    params_add(table, name, flags, init, scale, shape);
}

void discriminator_add_layer(struct ParamTable *table, const char *head, const char *layer,
                             int flags, const int64_t shape[PARAM_MAX_DIMS]) {
    const int64_t bias_shape[PARAM_MAX_DIMS] = {shape[0]};
    double fan_in = 1.0;
    for (int i = 1; i < PARAM_MAX_DIMS && shape[i]; i++) fan_in *= (double)shape[i];
    double bound = 1.0 / sqrt(fan_in);
    discriminator_add(table, head, layer, "weight", flags, INIT_UNIFORM, bound, shape);
    discriminator_add(table, head, layer, "bias", flags, INIT_UNIFORM, bound, bias_shape);
}

void discriminator_add_norm(struct ParamTable *table, const char *head, const char *norm,
                            int64_t n) {
    const int64_t shape[PARAM_MAX_DIMS] = {n};
    discriminator_add(table, head, norm, "weight", PARAM_F32, INIT_CONSTANT, 1.0, shape);
    discriminator_add(table, head, norm, "bias", PARAM_F32, INIT_ZERO, 0.0, shape);
}

void discriminator_params(struct ParamTable *table, const struct ModelConfig *model,
                          const struct DiscriminatorConfig *config) {
    int64_t pooled = config->channels[2], mlp = config->mlp_dim;
    for (int head = 0; head < config->features.n; head++) {
        char name[PARAM_NAME_MAX];
        snprintf(name, sizeof name, "heads.%d", head);
        params_add_unit(table, name);
        body_of(config->type)->params(table, name, model, config);
        discriminator_add_layer(table, name, "mlp.0", PARAM_F32,
                                (int64_t[PARAM_MAX_DIMS]){mlp, pooled});
        discriminator_add_layer(table, name, "mlp.2", PARAM_F32, (int64_t[PARAM_MAX_DIMS]){1, mlp});
    }
}

/* ---- a head's logits are one column of the matrix [B, K], rows K apart */

static void logits_column_put(const struct Backend *be, float *logits, const float *column,
                              int64_t batch, int n_heads, int head) {
    be->rows_add_backward(be, logits + head, n_heads, NULL, column, batch, 1);
}

static void logits_column_get(const struct Backend *be, float *column, const float *logits,
                              int64_t batch, int n_heads, int head, struct Arena *arena) {
    float *zero = arena_f32(arena, 1);
    be->zero(be, zero, sizeof *zero);
    be->rows_add(be, column, logits + head, n_heads, zero, batch, 1);
}

/* ---- forward */

static struct HeadPass head_pass(const struct Discriminator *d, int head, int64_t batch,
                                 struct VideoShape shape) {
    return (struct HeadPass){.d = d,
                             .first_param = d->weights->table->units[head].first_param,
                             .batch = batch,
                             .shape = shape};
}

/* logit [B] */
static void mlp_forward(const struct Discriminator *d, int head, float *logit, int64_t batch,
                        const struct DiscriminatorHeadTape *t) {
    const struct Weights *w = d->weights;
    const struct Backend *be = w->be;
    int64_t mlp = d->config.mlp_dim;
    be->linear_f32_forward(be, t->mlp_pre, t->pooled,
                           weight_f32(w, mlp_param(d, head, MLP_IN_WEIGHT)),
                           weight_f32(w, mlp_param(d, head, MLP_IN_BIAS)),
                           (struct LinearShape){batch, d->config.channels[2], mlp});
    be->leaky_relu_forward(be, t->mlp_hidden, t->mlp_pre, LEAKY_SLOPE, batch * mlp);
    be->linear_f32_forward(
        be, logit, t->mlp_hidden, weight_f32(w, mlp_param(d, head, MLP_OUT_WEIGHT)),
        weight_f32(w, mlp_param(d, head, MLP_OUT_BIAS)), (struct LinearShape){batch, mlp, 1});
}

void discriminator_forward(const struct Discriminator *d, const Act *const taps[], int64_t batch,
                           struct VideoShape shape, float *logits, struct Arena *arena,
                           struct DiscriminatorTape *tape) {
    const struct Backend *be = d->weights->be;
    int n_heads = d->config.features.n;
    tape->batch = batch;
    tape->shape = shape;
    be->zero(be, logits, batch * n_heads * (int64_t)sizeof *logits);
    for (int head = 0; head < n_heads; head++) {
        struct HeadPass pass = head_pass(d, head, batch, shape);
        struct DiscriminatorHeadTape *t = &tape->heads[head];
        float *logit = arena_f32(arena, batch);
        t->pooled = arena_f32(arena, batch * d->config.channels[2]);
        t->mlp_pre = arena_f32(arena, batch * d->config.mlp_dim);
        t->mlp_hidden = arena_f32(arena, batch * d->config.mlp_dim);
        unit_acquire(d->weights, head);
        body_of(d->config.type)->forward(&pass, taps[head], t->pooled, arena, t);
        mlp_forward(d, head, logit, batch, t);
        unit_release(d->weights, head);
        logits_column_put(be, logits, logit, batch, n_heads, head);
    }
}

/* ---- backward */

/* dpooled [B, channels[2]] from dlogit [B]. */
static void mlp_backward(const struct Discriminator *d, int head, float *dpooled,
                         const float *dlogit, int64_t batch, const struct DiscriminatorHeadTape *t,
                         struct Arena *arena) {
    const struct Weights *w = d->weights;
    const struct Backend *be = w->be;
    int64_t mlp = d->config.mlp_dim;
    struct LinearShape in = {batch, d->config.channels[2], mlp}, out = {batch, mlp, 1};
    float *dhidden = arena_f32(arena, batch * mlp), *dpre = arena_f32(arena, batch * mlp);
    if (w->trained)
        be->linear_f32_backward_params(be, weight_grad(w, mlp_param(d, head, MLP_OUT_WEIGHT)),
                                       weight_grad(w, mlp_param(d, head, MLP_OUT_BIAS)),
                                       t->mlp_hidden, dlogit, out);
    be->linear_f32_backward_input(be, dhidden, dlogit,
                                  weight_f32(w, mlp_param(d, head, MLP_OUT_WEIGHT)), out);
    be->leaky_relu_backward(be, dpre, dhidden, t->mlp_pre, LEAKY_SLOPE, batch * mlp);
    if (w->trained)
        be->linear_f32_backward_params(be, weight_grad(w, mlp_param(d, head, MLP_IN_WEIGHT)),
                                       weight_grad(w, mlp_param(d, head, MLP_IN_BIAS)), t->pooled,
                                       dpre, in);
    be->linear_f32_backward_input(be, dpooled, dpre,
                                  weight_f32(w, mlp_param(d, head, MLP_IN_WEIGHT)), in);
}

void discriminator_backward(const struct Discriminator *d, const float *dlogits,
                            const struct DiscriminatorTape *tape, Act *const dtaps[], bool last,
                            struct Arena *arena) {
    const struct Weights *w = d->weights;
    int n_heads = d->config.features.n;
    for (int head = 0; head < n_heads; head++) {
        struct HeadPass pass = head_pass(d, head, tape->batch, tape->shape);
        const struct DiscriminatorHeadTape *t = &tape->heads[head];
        Act *dtap = dtaps ? dtaps[head] : NULL;
        if (!dtap && !w->trained) continue;
        int64_t mark = arena_mark(arena);
        float *dlogit = arena_f32(arena, tape->batch);
        float *dpooled = arena_f32(arena, tape->batch * d->config.channels[2]);
        logits_column_get(w->be, dlogit, dlogits, tape->batch, n_heads, head, arena);
        unit_acquire_backward(w, head);
        mlp_backward(d, head, dpooled, dlogit, tape->batch, t, arena);
        body_of(d->config.type)->backward(&pass, dtap, dpooled, t, arena);
        unit_release(w, head);
        if (w->trained && last) unit_grad_ready(w, head);
        arena_release(arena, mark);
    }
}
