/* Heads made of convolutions.  A layer is a list of convolutions that together have its kernel and
 * stride: one over all axes, or one over space and one over time. */
#include "model/discriminator_conv.h"

#include <stdio.h>

#include "error.h"
#include "model/discriminator_body.h"

static const struct {
    int64_t kernel[3], stride[3];
} LAYERS[DISCRIMINATOR_LAYERS] = {
    {{3, 4, 4}, {1, 2, 2}},
    {{3, 4, 4}, {2, 2, 2}},
    {{3, 3, 3}, {2, 2, 2}},
    {{3, 3, 3}, {2, 2, 2}},
};
enum { PADDING = 1 };

/* Along the axes that a convolution does not go along, its kernel is 1. */
static const struct Split {
    int n;
    struct {
        const char *suffix; /* of its name */
        bool along[3];
    } convs[LAYER_MAX_CONVS];
} SPLITS[] = {
    [DISCRIMINATOR_CONV3D] = {1, {{"", {true, true, true}}}},
    [DISCRIMINATOR_SEPARABLE] = {2,
                                 {{".space", {false, true, true}},
                                  {".time", {true, false, false}}}},
};

/* ---- sizes */

/* Outputs along one axis; 0 when the kernel does not fit once. */
static int64_t conv_outputs(int64_t in, int64_t kernel, int64_t stride, int64_t padding) {
    int64_t room = in + 2 * padding - kernel;
    return in > 0 && room >= 0 ? room / stride + 1 : 0;
}

/* However its layers are split, a head passes through the same grids. */
int discriminator_starved_layer(enum DiscriminatorType type, struct VideoShape shape) {
    int64_t sizes[3] = {shape.frames, shape.height, shape.width};
    if (type != DISCRIMINATOR_CONV3D && type != DISCRIMINATOR_SEPARABLE) return -1;
    for (int j = 0; j < DISCRIMINATOR_LAYERS; j++)
        for (int i = 0; i < 3; i++) {
            sizes[i] = conv_outputs(sizes[i], LAYERS[j].kernel[i], LAYERS[j].stride[i], PADDING);
            if (!sizes[i]) return j;
        }
    return -1;
}

/* Convolution c of layer j but for the sizes that depend on the data. */
static struct ConvShape conv_of(int j, int c, const struct ModelConfig *model,
                                const struct DiscriminatorConfig *config) {
    const int64_t *channels = config->channels;
    const int64_t widths[] = {discriminator_tap_channels(model), channels[0], channels[1],
                              channels[2], channels[2]};
    struct ConvShape conv = {.in_channels = widths[c ? j + 1 : j], .out_channels = widths[j + 1]};
    for (int i = 0; i < 3; i++) {
        bool along = SPLITS[config->type].convs[c].along[i];
        conv.kernel[i] = along ? LAYERS[j].kernel[i] : 1;
        conv.stride[i] = along ? LAYERS[j].stride[i] : 1;
        conv.padding[i] = along ? PADDING : 0;
    }
    return conv;
}

void discriminator_conv_layers(struct ConvLayer layers[DISCRIMINATOR_LAYERS],
                               const struct ModelConfig *model,
                               const struct DiscriminatorConfig *config, int64_t batch,
                               struct VideoShape shape) {
    int starved = discriminator_starved_layer(config->type, shape);
    TMD_CHECK(starved < 0, "latents of %lld x %lld x %lld starve layer %d", (long long)shape.frames,
              (long long)shape.height, (long long)shape.width, starved);
    int64_t sizes[3] = {shape.frames, shape.height, shape.width};
    for (int j = 0; j < DISCRIMINATOR_LAYERS; j++) {
        layers[j].n = SPLITS[config->type].n;
        for (int c = 0; c < layers[j].n; c++) {
            struct ConvShape conv = conv_of(j, c, model, config);
            conv.batch = batch;
            for (int i = 0; i < 3; i++) {
                conv.in[i] = sizes[i];
                conv.out[i] = sizes[i] =
                    conv_outputs(sizes[i], conv.kernel[i], conv.stride[i], conv.padding[i]);
            }
            layers[j].convs[c] = conv;
        }
    }
}

static int64_t out_elems(const struct ConvShape *conv) {
    return conv->batch * conv->out_channels * conv->out[0] * conv->out[1] * conv->out[2];
}

/* The norm behind a layer. */
static struct GroupNormShape norm_shape(const struct ConvLayer *layer) {
    const struct ConvShape *last = &layer->convs[layer->n - 1];
    int64_t channels = last->out_channels;
    int64_t groups = channels < 4     ? 1
                     : channels <= 32 ? channels / 4
                                      : largest_divisor(channels, 32);
    return (struct GroupNormShape){.batch = last->batch,
                                   .channels = channels,
                                   .groups = groups,
                                   .positions = last->out[0] * last->out[1] * last->out[2],
                                   .eps = NORM_EPS,
                                   .slope = LEAKY_SLOPE};
}

/* ---- parameters: a layer's tensors stand in this order in the table */

enum ConvParam { CONV_WEIGHT, CONV_BIAS, N_CONV_PARAMS };
enum NormParam { NORM_WEIGHT, NORM_BIAS, N_NORM_PARAMS };

/* Of layer j, the first tensor of convolution c, or of the norm when c counts all convolutions. */
static int layer_param(const struct HeadPass *pass, int j, int c) {
    int n_convs = SPLITS[pass->d->config.type].n;
    return pass->first_param + j * (n_convs * N_CONV_PARAMS + N_NORM_PARAMS) + c * N_CONV_PARAMS;
}

static void conv_params(struct ParamTable *table, const char *head, const struct ModelConfig *model,
                        const struct DiscriminatorConfig *config) {
    const struct Split *split = &SPLITS[config->type];
    char name[PARAM_NAME_MAX];
    for (int j = 0; j < DISCRIMINATOR_LAYERS; j++) {
        int64_t width = 0;
        for (int c = 0; c < split->n; c++) {
            struct ConvShape s = conv_of(j, c, model, config);
            width = s.out_channels;
            snprintf(name, sizeof name, "conv%d%s", j, split->convs[c].suffix);
            discriminator_add_layer(table, head, name, 0,
                                    (int64_t[PARAM_MAX_DIMS]){width, s.in_channels, s.kernel[0],
                                                              s.kernel[1], s.kernel[2]});
        }
        snprintf(name, sizeof name, "norm%d", j);
        discriminator_add_norm(table, head, name, width);
    }
}

/* ---- forward */

/* Returns the layer's output. */
static Act *layer_forward(const struct HeadPass *pass, int j, const struct ConvLayer *layer,
                          const Act *h, struct Arena *arena, struct ConvLayerTape *t) {
    const struct Weights *w = pass->d->weights;
    const struct Backend *be = w->be;
    struct GroupNormShape norm = norm_shape(layer);
    for (int c = 0; c < layer->n; c++) {
        int param = layer_param(pass, j, c);
        Act *out = arena_act(arena, out_elems(&layer->convs[c]));
        be->conv3d_forward(be, out, h, weight_act(w, param + CONV_WEIGHT),
                           weight_act(w, param + CONV_BIAS), &layer->convs[c]);
        t->in[c] = h;
        h = t->norm_in = out;
    }
    int param = layer_param(pass, j, layer->n);
    Act *out = arena_act(arena, norm.batch * norm.channels * norm.positions);
    t->mean = arena_f32(arena, norm.batch * norm.groups);
    t->rstd = arena_f32(arena, norm.batch * norm.groups);
    be->group_norm_leaky_forward(be, out, t->mean, t->rstd, t->norm_in,
                                 weight_f32(w, param + NORM_WEIGHT),
                                 weight_f32(w, param + NORM_BIAS), norm);
    return out;
}

static void conv_forward(const struct HeadPass *pass, const Act *tap, float *pooled,
                         struct Arena *arena, struct DiscriminatorHeadTape *tape) {
    const struct Backend *be = pass->d->weights->be;
    struct ConvLayer layers[DISCRIMINATOR_LAYERS];
    const Act *h = tap;
    discriminator_conv_layers(layers, &pass->d->model, &pass->d->config, pass->batch, pass->shape);
    for (int j = 0; j < DISCRIMINATOR_LAYERS; j++)
        h = layer_forward(pass, j, &layers[j], h, arena, &tape->conv.layers[j]);
    struct GroupNormShape last = norm_shape(&layers[DISCRIMINATOR_LAYERS - 1]);
    be->mean_pool_forward(be, pooled, h, last.batch, last.channels, last.positions);
}

/* ---- backward */

/* The gradient on its way, and room for the next, both of the largest activation's size. */
struct Gradient {
    Act *now, *next;
};

static void step_on(struct Gradient *g) {
    Act *done = g->now;
    g->now = g->next;
    g->next = done;
}

/* From the gradient of the layer's output to that of its input: the tap's, in the first layer. */
static void layer_backward(const struct HeadPass *pass, int j, const struct ConvLayer *layer,
                           struct Gradient *g, Act *dtap, const struct ConvLayerTape *t) {
    const struct Weights *w = pass->d->weights;
    const struct Backend *be = w->be;
    int param = layer_param(pass, j, layer->n);
    be->group_norm_leaky_backward(be, g->next, weight_grad(w, param + NORM_WEIGHT),
                                  weight_grad(w, param + NORM_BIAS), g->now, t->norm_in, t->mean,
                                  t->rstd, weight_f32(w, param + NORM_WEIGHT),
                                  weight_f32(w, param + NORM_BIAS), norm_shape(layer));
    step_on(g);
    for (int c = layer->n - 1; c >= 0; c--) {
        bool first = j == 0 && c == 0;
        Act *dx = first ? dtap : g->next;
        param = layer_param(pass, j, c);
        if (w->trained)
            be->conv3d_backward_params(be, weight_grad(w, param + CONV_WEIGHT),
                                       weight_grad(w, param + CONV_BIAS), t->in[c], g->now,
                                       &layer->convs[c]);
        if (dx)
            be->conv3d_backward_input(be, dx, g->now, weight_act(w, param + CONV_WEIGHT),
                                      &layer->convs[c]);
        step_on(g);
    }
}

static int64_t largest_activation(const struct ConvLayer layers[DISCRIMINATOR_LAYERS]) {
    int64_t largest = 0;
    for (int j = 0; j < DISCRIMINATOR_LAYERS; j++)
        for (int c = 0; c < layers[j].n; c++) {
            int64_t n_elems = out_elems(&layers[j].convs[c]);
            if (n_elems > largest) largest = n_elems;
        }
    return largest;
}

static void conv_backward(const struct HeadPass *pass, Act *dtap, const float *dpooled,
                          const struct DiscriminatorHeadTape *tape, struct Arena *arena) {
    const struct Backend *be = pass->d->weights->be;
    struct ConvLayer layers[DISCRIMINATOR_LAYERS];
    discriminator_conv_layers(layers, &pass->d->model, &pass->d->config, pass->batch, pass->shape);
    struct GroupNormShape last = norm_shape(&layers[DISCRIMINATOR_LAYERS - 1]);
    int64_t largest = largest_activation(layers);
    struct Gradient g = {arena_act(arena, largest), arena_act(arena, largest)};
    be->mean_pool_backward(be, g.now, dpooled, last.batch, last.channels, last.positions);
    for (int j = DISCRIMINATOR_LAYERS - 1; j >= 0; j--)
        layer_backward(pass, j, &layers[j], &g, dtap, &tape->conv.layers[j]);
}

const struct DiscriminatorBody discriminator_conv_body = {conv_params, conv_forward, conv_backward};
