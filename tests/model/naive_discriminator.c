/* Loops over every index of the formulas; nothing is shared with the code under test. */
#include "naive_discriminator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../kernels/naive_conv.h"
#include "error.h"

/* The head's tensor "<layer>.<part>". */
static const double *param(const struct NaiveDiscriminator *n, int head, const char *layer,
                           const char *part) {
    char name[3 * PARAM_NAME_MAX];
    snprintf(name, sizeof name, "heads.%d.%s.%s", head, layer, part);
    int index = params_find(n->table, name);
    TMD_CHECK(index >= 0, "the table has no '%s'", name);
    return n->params + n->table->params[index].offset;
}

static double leaky(double x) {
    return x > 0.0 ? x : 0.2 * x;
}

static double *doubles(int64_t n_elems) {
    return xcalloc((unsigned long)n_elems * sizeof(double));
}

/* x [n] to mean 0 and variance 1. */
static void standardise(double *x, int64_t n) {
    double sum = 0.0, squares = 0.0, mean;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) / sqrt(squares / (double)n + 1e-5);
}

/* ---- convolutions ---- */

static int64_t groups_of(int64_t channels) {
    if (channels <= 32) return channels < 4 ? 1 : channels / 4;
    for (int64_t groups = 32;; groups--)
        if (channels % groups == 0) return groups;
}

/* In place over h [B, channels, positions]. */
static void norm_leaky(double *h, const double *w, const double *b, int64_t batch, int64_t channels,
                       int64_t positions) {
    int64_t groups = groups_of(channels), n = channels / groups * positions;
    for (int64_t g = 0; g < batch * groups; g++) standardise(h + g * n, n);
    for (int64_t i = 0; i < batch * channels * positions; i++) {
        int64_t channel = i / positions % channels;
        h[i] = leaky(h[i] * w[channel] + b[channel]);
    }
}

/* One convolution; frees h, updates grid and width, returns the result. */
static double *convolve(const struct NaiveDiscriminator *n, int head, const char *name, double *h,
                        int64_t grid[3], int64_t *width, int64_t out_width, const int64_t kernel[3],
                        const int64_t stride[3]) {
    struct ConvShape s = {.batch = n->batch, .in_channels = *width, .out_channels = out_width};
    for (int i = 0; i < 3; i++) {
        s.in[i] = grid[i];
        s.kernel[i] = kernel[i];
        s.stride[i] = stride[i];
        s.padding[i] = kernel[i] == 1 ? 0 : 1;
        s.out[i] = grid[i] = (grid[i] + 2 * s.padding[i] - kernel[i]) / stride[i] + 1;
    }
    *width = out_width;
    double *y = doubles(naive_conv_y_elems(&s));
    naive_conv_forward(y, h, param(n, head, name, "weight"), param(n, head, name, "bias"), &s);
    free(h);
    return y;
}

/* The published sizes once more. */
static double *layer(const struct NaiveDiscriminator *n, int head, int j, double *h,
                     int64_t grid[3], int64_t *width) {
    static const int64_t kernels[4][3] = {{3, 4, 4}, {3, 4, 4}, {3, 3, 3}, {3, 3, 3}};
    static const int64_t strides[4][3] = {{1, 2, 2}, {2, 2, 2}, {2, 2, 2}, {2, 2, 2}};
    const int64_t *k = kernels[j], *s = strides[j];
    int64_t out = n->config.channels[j < 2 ? j : 2];
    char name[32];
    if (n->config.type == DISCRIMINATOR_SEPARABLE) {
        snprintf(name, sizeof name, "conv%d.space", j);
        h = convolve(n, head, name, h, grid, width, out, (int64_t[]){1, k[1], k[2]},
                     (int64_t[]){1, s[1], s[2]});
        snprintf(name, sizeof name, "conv%d.time", j);
        h = convolve(n, head, name, h, grid, width, out, (int64_t[]){k[0], 1, 1},
                     (int64_t[]){s[0], 1, 1});
    } else {
        snprintf(name, sizeof name, "conv%d", j);
        h = convolve(n, head, name, h, grid, width, out, k, s);
    }
    snprintf(name, sizeof name, "norm%d", j);
    norm_leaky(h, param(n, head, name, "weight"), param(n, head, name, "bias"), n->batch, out,
               grid[0] * grid[1] * grid[2]);
    return h;
}

static void conv_body(const struct NaiveDiscriminator *n, int head, double *pooled) {
    const int64_t *patch = n->model.patch_size;
    int64_t grid[3] = {n->latents.frames, n->latents.height, n->latents.width};
    int64_t width = n->model.dim / (patch[0] * patch[1] * patch[2]);
    int64_t n_elems = n->batch * width * grid[0] * grid[1] * grid[2];
    double *h = doubles(n_elems);
    memcpy(h, n->taps[head], (size_t)n_elems * sizeof *h);
    for (int j = 0; j < 4; j++) h = layer(n, head, j, h, grid, &width);
    int64_t positions = grid[0] * grid[1] * grid[2];
    for (int64_t i = 0; i < n->batch * width; i++) {
        pooled[i] = 0.0;
        for (int64_t p = 0; p < positions; p++)
            pooled[i] += h[i * positions + p] / (double)positions;
    }
    free(h);
}

/* ---- attention ---- */

/* h [D]: a token's values lie over its patch, channels fastest. */
static void gather_token(const struct NaiveDiscriminator *n, double *h, int head, int64_t sample,
                         int64_t token) {
    const int64_t *patch = n->model.patch_size;
    int64_t volume = patch[0] * patch[1] * patch[2], channels = n->model.dim / volume;
    int64_t rows = n->latents.height / patch[1], columns = n->latents.width / patch[2];
    const int64_t corner[3] = {token / columns / rows * patch[0], token / columns % rows * patch[1],
                               token % columns * patch[2]};
    for (int64_t i = 0; i < n->model.dim; i++) {
        int64_t inside = i / channels, channel = i % channels;
        int64_t frame = corner[0] + inside / patch[2] / patch[1];
        int64_t row = corner[1] + inside / patch[2] % patch[1];
        int64_t column = corner[2] + inside % patch[2];
        int64_t plane = (sample * channels + channel) * n->latents.frames + frame;
        h[i] = n->taps[head][(plane * n->latents.height + row) * n->latents.width + column];
    }
}

static double product(const double *a, const double *b, int64_t n_elems) {
    double sum = 0.0;
    for (int64_t i = 0; i < n_elems; i++) sum += a[i] * b[i];
    return sum;
}

/* k and v of one sample, [S, C] each. */
static void keys_and_values(const struct NaiveDiscriminator *n, int head, int64_t sample,
                            int64_t tokens, double *k, double *v) {
    int64_t dim = n->model.dim, width = n->config.channels[2];
    const double *norm_w = param(n, head, "norm", "weight"),
                 *norm_b = param(n, head, "norm", "bias");
    const double *wk = param(n, head, "attention.k", "weight");
    const double *wv = param(n, head, "attention.v", "weight");
    double *h = doubles(dim);
    for (int64_t s = 0; s < tokens; s++) {
        gather_token(n, h, head, sample, s);
        standardise(h, dim);
        for (int64_t i = 0; i < dim; i++) h[i] = h[i] * norm_w[i] + norm_b[i];
        for (int64_t c = 0; c < width; c++) {
            k[s * width + c] = product(h, wk + c * dim, dim);
            v[s * width + c] = product(h, wv + c * dim, dim);
        }
    }
    free(h);
}

static int64_t head_dim_of(int64_t width) {
    int64_t dim = 64;
    while (width % dim) dim--;
    return dim;
}

static void attend(const double *query, const double *k, const double *v, int64_t tokens,
                   int64_t width, double *out) {
    int64_t dim = head_dim_of(width);
    for (int64_t first = 0; first < width; first += dim) {
        double total = 0.0;
        for (int64_t c = first; c < first + dim; c++) out[c] = 0.0;
        for (int64_t s = 0; s < tokens; s++) {
            double score = product(query + first, k + s * width + first, dim);
            double weight = exp(score / sqrt((double)dim));
            total += weight;
            for (int64_t c = first; c < first + dim; c++) out[c] += weight * v[s * width + c];
        }
        for (int64_t c = first; c < first + dim; c++) out[c] /= total;
    }
}

static void attention_body(const struct NaiveDiscriminator *n, int head, double *pooled) {
    const int64_t *patch = n->model.patch_size;
    int64_t width = n->config.channels[2];
    int64_t tokens = n->latents.frames / patch[0] * (n->latents.height / patch[1]) *
                     (n->latents.width / patch[2]);
    double *k = doubles(tokens * width), *v = doubles(tokens * width);
    for (int64_t b = 0; b < n->batch; b++) {
        keys_and_values(n, head, b, tokens, k, v);
        attend(param(n, head, "attention", "query"), k, v, tokens, width, pooled + b * width);
    }
    free(k);
    free(v);
}

/* ---- the head ---- */

void naive_discriminator_head(const struct NaiveDiscriminator *n, int head, double *logits) {
    int64_t width = n->config.channels[2];
    const double *w0 = param(n, head, "mlp.0", "weight"), *b0 = param(n, head, "mlp.0", "bias");
    const double *w2 = param(n, head, "mlp.2", "weight"), *b2 = param(n, head, "mlp.2", "bias");
    double *pooled = doubles(n->batch * width);
    if (n->config.type == DISCRIMINATOR_ATTENTION)
        attention_body(n, head, pooled);
    else
        conv_body(n, head, pooled);
    for (int64_t b = 0; b < n->batch; b++) {
        logits[b] = b2[0];
        for (int64_t j = 0; j < n->config.mlp_dim; j++)
            logits[b] += w2[j] * leaky(b0[j] + product(pooled + b * width, w0 + j * width, width));
    }
    free(pooled);
}
