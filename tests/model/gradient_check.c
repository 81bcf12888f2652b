/* Each slope comes from evaluations of the loss at points along a random direction. */
#include "gradient_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "error.h"
#include "philox.h"

static double uniform(uint64_t seed, int64_t i) {
    return 2.0 * philox_uniform(philox(seed, (uint32_t)i, 0, 0, 0).word[0]) - 1.0;
}

static int64_t n_bytes(int64_t n_elems) {
    return n_elems * (int64_t)sizeof(float);
}

static float *host_copy(const struct Backend *be, const float *device, int64_t n_elems) {
    float *host = xmalloc((size_t)n_bytes(n_elems));
    be->download(be, host, device, n_bytes(n_elems));
    return host;
}

void fill_random(const struct Backend *be, float *device, int64_t n_elems, uint64_t seed,
                 double scale) {
    float *host = xmalloc((size_t)n_bytes(n_elems));
    for (int64_t i = 0; i < n_elems; i++) host[i] = (float)(scale * uniform(seed, i));
    be->upload(be, device, host, n_bytes(n_elems));
    free(host);
}

void weights_fill_random(struct Weights *weights, uint64_t seed) {
    const struct ParamTable *table = weights->table;
    float *host = xcalloc((size_t)n_bytes(table->n_elems));
    params_initialise(table, seed, host);
    for (int p = 0; p < table->n_params; p++) {
        const struct ParamDesc *param = &table->params[p];
        for (int64_t i = 0; i < param->n_elems; i++)
            host[param->offset + i] += (float)(0.2 * uniform(seed + 1 + (uint64_t)p, i));
    }
    weights_upload(weights, host);
    free(host);
}

/* ---- slopes ---- */

enum { DIRECTIONS = 6 };

static double direction(int d, int64_t i) {
    return uniform(1000 + (uint64_t)d, i);
}

/* The loss at start + step * direction d. */
static double loss_at(const struct Subject *s, float *device, const float *start, int d,
                      double step, int64_t n_elems) {
    float *moved = xmalloc((size_t)n_bytes(n_elems));
    for (int64_t i = 0; i < n_elems; i++)
        moved[i] = (float)((double)start[i] + step * direction(d, i));
    s->be->upload(s->be, device, moved, n_bytes(n_elems));
    free(moved);
    return s->loss(s->context);
}

static void measure_slopes(const struct Subject *s, float *device, int64_t n_elems,
                           double slopes[DIRECTIONS]) {
    const double step = 0.02;
    float *start = host_copy(s->be, device, n_elems);
    for (int d = 0; d < DIRECTIONS; d++) {
        double near = loss_at(s, device, start, d, step, n_elems) -
                      loss_at(s, device, start, d, -step, n_elems);
        double far = loss_at(s, device, start, d, 2.0 * step, n_elems) -
                     loss_at(s, device, start, d, -2.0 * step, n_elems);
        slopes[d] = (8.0 * near - far) / (12.0 * step);
    }
    s->be->upload(s->be, device, start, n_bytes(n_elems));
    free(start);
}

/* NaN if anything is. */
static double slope_error(const double slopes[DIRECTIONS], const float *gradient, int64_t n_elems) {
    double errors = 0.0, squares = 0.0;
    for (int d = 0; d < DIRECTIONS; d++) {
        double product = 0.0;
        for (int64_t i = 0; i < n_elems; i++) product += (double)gradient[i] * direction(d, i);
        errors += (product - slopes[d]) * (product - slopes[d]);
        squares += slopes[d] * slopes[d];
    }
    return sqrt(errors / squares);
}

/* ---- verdicts ---- */

/* Loses the elements that are larger than most. */
static void drop_larger(float *gradient, int64_t n_elems) {
    double squares = 0.0;
    for (int64_t i = 0; i < n_elems; i++) squares += (double)gradient[i] * (double)gradient[i];
    double limit = 0.7 * sqrt(squares / (double)n_elems);
    for (int64_t i = 0; i < n_elems; i++)
        if (fabs((double)gradient[i]) >= limit) gradient[i] = 0.0f;
}

void assert_gradient(const struct Subject *s, const char *name, float *device,
                     const float *device_gradient, int64_t n_elems) {
    double slopes[DIRECTIONS];
    float *gradient = host_copy(s->be, device_gradient, n_elems);
    measure_slopes(s, device, n_elems, slopes);
    double error = slope_error(slopes, gradient, n_elems);
    if (!(error <= GRADIENT_TOLERANCE)) fail_msg("%s: slopes differ by %.2e", name, error);

    for (int64_t i = 0; i < n_elems; i++) gradient[i] *= 3.0f;
    if (slope_error(slopes, gradient, n_elems) <= GRADIENT_TOLERANCE)
        fail_msg("%s: three times the gradient passes", name);
    for (int64_t i = 0; i < n_elems; i++) gradient[i] /= 3.0f;
    drop_larger(gradient, n_elems);
    if (slope_error(slopes, gradient, n_elems) <= GRADIENT_TOLERANCE)
        fail_msg("%s: a part of the gradient passes", name);
    free(gradient);
}

int assert_gradients(const struct Subject *s, const struct Weights *weights) {
    const struct ParamTable *table = weights->table;
    for (int p = 0; p < table->n_params; p++) {
        const struct ParamDesc *param = &table->params[p];
        assert_gradient(s, param->name, weights->master + param->offset,
                        weights->grad + param->offset, param->n_elems);
    }
    return table->n_params;
}
