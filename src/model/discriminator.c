/* The discriminator's heads, forward and backward by hand; the formulas stand in the header. */
#include "model/discriminator.h"

#include <math.h>
#include <stdio.h>

#include "error.h"

static const float LEAKY_SLOPE = 0.2f, NORM_EPS = 1e-5f;

static const struct {
    int64_t kernel[3], stride[3];
} CONVS[DISCRIMINATOR_CONVS] = {
    {{3, 4, 4}, {1, 2, 2}},
    {{3, 4, 4}, {2, 2, 2}},
    {{3, 3, 3}, {2, 2, 2}},
    {{3, 3, 3}, {2, 2, 2}},
};
enum { PADDING = 1 };

/* ---- parameters: a head's tensors stand in this order in the table */

enum ConvParam { CONV_WEIGHT, CONV_BIAS, NORM_WEIGHT, NORM_BIAS, N_CONV_PARAMS };
enum MlpParam { MLP_IN_WEIGHT, MLP_IN_BIAS, MLP_OUT_WEIGHT, MLP_OUT_BIAS, N_MLP_PARAMS };
enum { N_HEAD_PARAMS = DISCRIMINATOR_CONVS * N_CONV_PARAMS + N_MLP_PARAMS };

static int conv_param(int head, int conv, enum ConvParam which) {
    return head * N_HEAD_PARAMS + conv * N_CONV_PARAMS + (int)which;
}

static int mlp_param(int head, enum MlpParam which) {
    return head * N_HEAD_PARAMS + DISCRIMINATOR_CONVS * N_CONV_PARAMS + (int)which;
}

/* Channels before the convolutions, and after each. */
static void channel_widths(int64_t widths[DISCRIMINATOR_CONVS + 1], const struct ModelConfig *model,
                           const struct DiscriminatorConfig *config) {
    const int64_t *patch = model->patch_size, *channels = config->channels;
    widths[0] = model->dim / (patch[0] * patch[1] * patch[2]);
    widths[1] = channels[0];
    widths[2] = channels[1];
    widths[3] = widths[4] = channels[2];
}

static int64_t norm_groups(int64_t channels) {
    if (channels <= 32) return channels < 4 ? 1 : channels / 4;
    int64_t groups = 32;
    while (channels % groups) groups--;
    return groups;
}

/* Weight [shape] and bias [shape[0]], both within +-1 / sqrt(fan_in). */
static void add_layer(struct ParamTable *table, const char *name, int flags, int64_t fan_in,
                      const int64_t shape[PARAM_MAX_DIMS]) {
    char full[PARAM_NAME_MAX];
    double bound = 1.0 / sqrt((double)fan_in);
    snprintf(full, sizeof full, "%s.weight", name);
    params_add(table, full, flags, INIT_UNIFORM, bound, shape);
    snprintf(full, sizeof full, "%s.bias", name);
    params_add(table, full, flags, INIT_UNIFORM, bound, (int64_t[PARAM_MAX_DIMS]){shape[0]});
}

static void add_norm(struct ParamTable *table, const char *name, int64_t channels) {
    char full[PARAM_NAME_MAX];
    const int64_t shape[PARAM_MAX_DIMS] = {channels};
    snprintf(full, sizeof full, "%s.weight", name);
    params_add(table, full, PARAM_F32, INIT_CONSTANT, 1.0, shape);
    snprintf(full, sizeof full, "%s.bias", name);
    params_add(table, full, PARAM_F32, INIT_ZERO, 0.0, shape);
}

void discriminator_params(struct ParamTable *table, const struct ModelConfig *model,
                          const struct DiscriminatorConfig *config) {
    int64_t widths[DISCRIMINATOR_CONVS + 1], mlp = config->mlp_dim;
    channel_widths(widths, model, config);
    for (int head = 0; head < config->features.n; head++) {
        char name[PARAM_NAME_MAX / 2];
        snprintf(name, sizeof name, "heads.%d", head);
        params_add_unit(table, name);
        for (int j = 0; j < DISCRIMINATOR_CONVS; j++) {
            const int64_t *k = CONVS[j].kernel, in = widths[j], out = widths[j + 1];
            snprintf(name, sizeof name, "heads.%d.conv%d", head, j);
            add_layer(table, name, 0, in * k[0] * k[1] * k[2],
                      (int64_t[PARAM_MAX_DIMS]){out, in, k[0], k[1], k[2]});
            snprintf(name, sizeof name, "heads.%d.norm%d", head, j);
            add_norm(table, name, out);
        }
        int64_t pooled = widths[DISCRIMINATOR_CONVS];
        snprintf(name, sizeof name, "heads.%d.mlp.0", head);
        add_layer(table, name, PARAM_F32, pooled, (int64_t[PARAM_MAX_DIMS]){mlp, pooled});
        snprintf(name, sizeof name, "heads.%d.mlp.2", head);
        add_layer(table, name, PARAM_F32, mlp, (int64_t[PARAM_MAX_DIMS]){1, mlp});
    }
}

/* ---- sizes */

/* Outputs along one axis; 0 when the kernel does not fit once. */
static int64_t conv_outputs(int64_t in, int64_t kernel, int64_t stride) {
    int64_t room = in + 2 * PADDING - kernel;
    return in > 0 && room >= 0 ? room / stride + 1 : 0;
}

bool discriminator_fits(struct VideoShape shape) {
    int64_t sizes[3] = {shape.frames, shape.height, shape.width};
    for (int j = 0; j < DISCRIMINATOR_CONVS; j++)
        for (int i = 0; i < 3; i++)
            sizes[i] = conv_outputs(sizes[i], CONVS[j].kernel[i], CONVS[j].stride[i]);
    return sizes[0] && sizes[1] && sizes[2];
}

void discriminator_conv_shapes(struct ConvShape convs[DISCRIMINATOR_CONVS],
                               const struct ModelConfig *model,
                               const struct DiscriminatorConfig *config, int64_t batch,
                               struct VideoShape shape) {
    TMD_CHECK(discriminator_fits(shape), "latents of %lld x %lld x %lld", (long long)shape.frames,
              (long long)shape.height, (long long)shape.width);
    int64_t widths[DISCRIMINATOR_CONVS + 1];
    int64_t sizes[3] = {shape.frames, shape.height, shape.width};
    channel_widths(widths, model, config);
    for (int j = 0; j < DISCRIMINATOR_CONVS; j++) {
        struct ConvShape *conv = &convs[j];
        *conv = (struct ConvShape){.batch = batch,
                                   .in_channels = widths[j],
                                   .out_channels = widths[j + 1],
                                   .padding = PADDING};
        for (int i = 0; i < 3; i++) {
            conv->kernel[i] = CONVS[j].kernel[i];
            conv->stride[i] = CONVS[j].stride[i];
            conv->in[i] = sizes[i];
            conv->out[i] = sizes[i] = conv_outputs(sizes[i], conv->kernel[i], conv->stride[i]);
        }
    }
}

static struct GroupNormShape norm_shape(const struct ConvShape *conv) {
    return (struct GroupNormShape){.batch = conv->batch,
                                   .channels = conv->out_channels,
                                   .groups = norm_groups(conv->out_channels),
                                   .positions = conv->out[0] * conv->out[1] * conv->out[2],
                                   .eps = NORM_EPS,
                                   .slope = LEAKY_SLOPE};
}

static int64_t norm_n_elems(const struct ConvShape *conv) {
    struct GroupNormShape s = norm_shape(conv);
    return s.batch * s.channels * s.positions;
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

static void mlp_forward(const struct Discriminator *d, int head, float *logit, int64_t batch,
                        int64_t pooled, const struct DiscriminatorHeadTape *t) {
    const struct Weights *w = d->weights;
    const struct Backend *be = w->be;
    int64_t mlp = d->config.mlp_dim;
    be->linear_f32_forward(be, t->mlp_pre, t->pooled, weight_f32(w, mlp_param(head, MLP_IN_WEIGHT)),
                           weight_f32(w, mlp_param(head, MLP_IN_BIAS)),
                           (struct LinearShape){batch, pooled, mlp});
    be->leaky_relu_forward(be, t->mlp_hidden, t->mlp_pre, LEAKY_SLOPE, batch * mlp);
    be->linear_f32_forward(be, logit, t->mlp_hidden, weight_f32(w, mlp_param(head, MLP_OUT_WEIGHT)),
                           weight_f32(w, mlp_param(head, MLP_OUT_BIAS)),
                           (struct LinearShape){batch, mlp, 1});
}

/* logit [B] */
static void head_forward(const struct Discriminator *d, int head, const Act *tap, float *logit,
                         const struct ConvShape convs[], struct Arena *arena,
                         struct DiscriminatorHeadTape *t) {
    const struct Weights *w = d->weights;
    const struct Backend *be = w->be;
    const Act *h = tap;
    struct GroupNormShape norm = {0};
    for (int j = 0; j < DISCRIMINATOR_CONVS; j++) {
        norm = norm_shape(&convs[j]);
        Act *out = arena_act(arena, norm_n_elems(&convs[j]));
        t->conv_in[j] = h;
        t->norm_in[j] = arena_act(arena, norm_n_elems(&convs[j]));
        t->mean[j] = arena_f32(arena, norm.batch * norm.groups);
        t->rstd[j] = arena_f32(arena, norm.batch * norm.groups);
        be->conv3d_forward(be, t->norm_in[j], h, weight_act(w, conv_param(head, j, CONV_WEIGHT)),
                           weight_act(w, conv_param(head, j, CONV_BIAS)), &convs[j]);
        be->group_norm_leaky_forward(be, out, t->mean[j], t->rstd[j], t->norm_in[j],
                                     weight_f32(w, conv_param(head, j, NORM_WEIGHT)),
                                     weight_f32(w, conv_param(head, j, NORM_BIAS)), norm);
        h = out;
    }
    t->pooled = arena_f32(arena, norm.batch * norm.channels);
    t->mlp_pre = arena_f32(arena, norm.batch * d->config.mlp_dim);
    t->mlp_hidden = arena_f32(arena, norm.batch * d->config.mlp_dim);
    be->mean_pool_forward(be, t->pooled, h, norm.batch, norm.channels, norm.positions);
    mlp_forward(d, head, logit, norm.batch, norm.channels, t);
}

void discriminator_forward(const struct Discriminator *d, const Act *const taps[], int64_t batch,
                           struct VideoShape shape, float *logits, struct Arena *arena,
                           struct DiscriminatorTape *tape) {
    const struct Backend *be = d->weights->be;
    int n_heads = d->config.features.n;
    struct ConvShape convs[DISCRIMINATOR_CONVS];
    discriminator_conv_shapes(convs, &d->model, &d->config, batch, shape);
    tape->batch = batch;
    tape->shape = shape;
    be->zero(be, logits, batch * n_heads * (int64_t)sizeof *logits);
    for (int head = 0; head < n_heads; head++) {
        unit_acquire(d->weights, head);
        float *logit = arena_f32(arena, batch);
        head_forward(d, head, taps[head], logit, convs, arena, &tape->heads[head]);
        logits_column_put(be, logits, logit, batch, n_heads, head);
        unit_release(d->weights, head);
    }
}

/* ---- backward */

/* dpooled [B, pooled] from dlogit [B]. */
static void mlp_backward(const struct Discriminator *d, int head, float *dpooled,
                         const float *dlogit, int64_t batch, int64_t pooled,
                         const struct DiscriminatorHeadTape *t, struct Arena *arena) {
    const struct Weights *w = d->weights;
    const struct Backend *be = w->be;
    int64_t mlp = d->config.mlp_dim;
    struct LinearShape in = {batch, pooled, mlp}, out = {batch, mlp, 1};
    float *dhidden = arena_f32(arena, batch * mlp), *dpre = arena_f32(arena, batch * mlp);
    if (w->grad)
        be->linear_f32_backward_params(be, weight_grad(w, mlp_param(head, MLP_OUT_WEIGHT)),
                                       weight_grad(w, mlp_param(head, MLP_OUT_BIAS)), t->mlp_hidden,
                                       dlogit, out);
    be->linear_f32_backward_input(be, dhidden, dlogit,
                                  weight_f32(w, mlp_param(head, MLP_OUT_WEIGHT)), out);
    be->leaky_relu_backward(be, dpre, dhidden, t->mlp_pre, LEAKY_SLOPE, batch * mlp);
    if (w->grad)
        be->linear_f32_backward_params(be, weight_grad(w, mlp_param(head, MLP_IN_WEIGHT)),
                                       weight_grad(w, mlp_param(head, MLP_IN_BIAS)), t->pooled,
                                       dpre, in);
    be->linear_f32_backward_input(be, dpooled, dpre, weight_f32(w, mlp_param(head, MLP_IN_WEIGHT)),
                                  in);
}

/* Through norm and convolution j; dnorm_in is room for one more gradient of dh_out's shape.  dh_in
 * may lie where dh_out does, which is not read again, or be NULL. */
static void conv_backward(const struct Discriminator *d, int head, int j, Act *dh_in,
                          const Act *dh_out, Act *dnorm_in, const struct ConvShape *conv,
                          const struct DiscriminatorHeadTape *t) {
    const struct Weights *w = d->weights;
    const struct Backend *be = w->be;
    int norm_weight = conv_param(head, j, NORM_WEIGHT), norm_bias = conv_param(head, j, NORM_BIAS);
    be->group_norm_leaky_backward(be, dnorm_in, weight_grad(w, norm_weight),
                                  weight_grad(w, norm_bias), dh_out, t->norm_in[j], t->mean[j],
                                  t->rstd[j], weight_f32(w, norm_weight), weight_f32(w, norm_bias),
                                  norm_shape(conv));
    if (w->grad)
        be->conv3d_backward_params(be, weight_grad(w, conv_param(head, j, CONV_WEIGHT)),
                                   weight_grad(w, conv_param(head, j, CONV_BIAS)), t->conv_in[j],
                                   dnorm_in, conv);
    if (dh_in)
        be->conv3d_backward_input(be, dh_in, dnorm_in,
                                  weight_act(w, conv_param(head, j, CONV_WEIGHT)), conv);
}

static void head_backward(const struct Discriminator *d, int head, Act *dtap, const float *dlogit,
                          const struct ConvShape convs[], const struct DiscriminatorHeadTape *t,
                          struct Arena *arena) {
    const struct Backend *be = d->weights->be;
    struct GroupNormShape last = norm_shape(&convs[DISCRIMINATOR_CONVS - 1]);
    int64_t largest = 0;
    for (int j = 0; j < DISCRIMINATOR_CONVS; j++)
        if (norm_n_elems(&convs[j]) > largest) largest = norm_n_elems(&convs[j]);
    Act *dh = arena_act(arena, largest), *dnorm_in = arena_act(arena, largest);
    float *dpooled = arena_f32(arena, last.batch * last.channels);

    mlp_backward(d, head, dpooled, dlogit, last.batch, last.channels, t, arena);
    be->mean_pool_backward(be, dh, dpooled, last.batch, last.channels, last.positions);
    for (int j = DISCRIMINATOR_CONVS - 1; j >= 0; j--)
        conv_backward(d, head, j, j ? dh : dtap, dh, dnorm_in, &convs[j], t);
}

void discriminator_backward(const struct Discriminator *d, const float *dlogits,
                            const struct DiscriminatorTape *tape, Act *const dtaps[], bool last,
                            struct Arena *arena) {
    const struct Weights *w = d->weights;
    int n_heads = d->config.features.n;
    struct ConvShape convs[DISCRIMINATOR_CONVS];
    discriminator_conv_shapes(convs, &d->model, &d->config, tape->batch, tape->shape);
    for (int head = 0; head < n_heads; head++) {
        Act *dtap = dtaps ? dtaps[head] : NULL;
        if (!dtap && !w->grad) continue;
        int64_t mark = arena_mark(arena);
        float *dlogit = arena_f32(arena, tape->batch);
        logits_column_get(w->be, dlogit, dlogits, tape->batch, n_heads, head, arena);
        unit_acquire(w, head);
        head_backward(d, head, dtap, dlogit, convs, &tape->heads[head], arena);
        unit_release(w, head);
        if (w->grad && last) unit_grad_ready(w, head);
        arena_release(arena, mark);
    }
}
