/* Matrix products, in the three forms that a linear layer has. */
#include <stdio.h>
#include <stdlib.h>

#include "philox.h"
#include "train/bench.h"

struct Product {
    const struct Backend *be;
    struct LinearShape shape;
    Act *x, *w, *y; /* [rows, n_in], [n_out, n_in], [rows, n_out] */
    float *dw;
    Act *bias;
};

static void run_forward(void *context) {
    const struct Product *p = context;
    p->be->linear_forward(p->be, p->y, p->x, p->w, p->bias, p->shape);
}

static void run_backward_input(void *context) {
    const struct Product *p = context;
    p->be->linear_backward_input(p->be, p->x, p->y, p->w, p->shape, false);
}

static void run_backward_params(void *context) {
    const struct Product *p = context;
    p->be->linear_backward_params(p->be, p->dw, NULL, p->x, p->y, p->shape);
}

/* Device activations with values in (0, 1). */
static Act *random_acts(const struct Backend *be, int64_t n_elems) {
    float *host = xmalloc((size_t)n_elems * sizeof *host);
    for (int64_t i = 0; i < n_elems; i++)
        host[i] = (float)philox_uniform(philox(1, (uint32_t)i, 0, 0, 0).word[0]);
    float *device = be->memory_alloc(be, n_elems * (int64_t)sizeof *device);
    Act *acts = be->memory_alloc(be, n_elems * dtype_bytes(be->act_dtype));
    be->upload(be, device, host, n_elems * (int64_t)sizeof *device);
    be->act_from_f32(be, acts, device, n_elems);
    be->memory_free(be, device);
    free(host);
    return acts;
}

static struct Product product_alloc(const struct Backend *be, struct LinearShape s) {
    return (struct Product){.be = be,
                            .shape = s,
                            .x = random_acts(be, s.rows * s.n_in),
                            .w = random_acts(be, s.n_out * s.n_in),
                            .y = random_acts(be, s.rows * s.n_out),
                            .bias = random_acts(be, s.n_out),
                            .dw = be->memory_alloc(be, s.n_out * s.n_in * (int64_t)sizeof(float))};
}

static void product_free(struct Product *p) {
    void *memory[] = {p->x, p->w, p->y, p->bias, p->dw};
    for (int i = 0; i < 5; i++) p->be->memory_free(p->be, memory[i]);
}

struct OpTally bench_product(struct BenchReport *report, const struct Backend *be,
                             struct LinearShape s) {
    struct Product p = product_alloc(be, s);
    struct OpCost cost = op_cost_linear_forward(be, p.y, p.x, p.w, p.bias, s);
    double seconds = bench_time(report, run_forward, &p);
    product_free(&p);
    return (struct OpTally){1, seconds, cost.flops, cost.bytes};
}

static void bench_products(struct BenchReport *report, const struct Backend *be, const char *name,
                           struct LinearShape s) {
    static const struct {
        const char *name;
        void (*run)(void *);
    } forms[] = {{"NT", run_forward}, {"NN", run_backward_input}, {"TN", run_backward_params}};
    struct Product p = product_alloc(be, s);
    struct OpCost costs[] = {op_cost_linear_forward(be, p.y, p.x, p.w, p.bias, s),
                             op_cost_linear_backward_input(be, p.x, p.y, p.w, s, false),
                             op_cost_linear_backward_params(be, p.dw, NULL, p.x, p.y, s)};
    for (int i = 0; i < 3; i++) {
        char row[96];
        snprintf(row, sizeof row, "%s %s", forms[i].name, name);
        double seconds = bench_time(report, forms[i].run, &p);
        bench_row(report, row, (struct OpTally){1, seconds, costs[i].flops, costs[i].bytes});
    }
    product_free(&p);
}

void bench_gemm(struct BenchReport *report, const struct Backend *be,
                const struct ModelConfig *model, int64_t batch, struct VideoShape v) {
    bench_section(report, "matrix products: y = x W^T (NT), dx = dy W (NN), dW += dy^T x (TN)");
    for (int64_t n = 512; n <= 2048; n *= 2) {
        char name[32];
        snprintf(name, sizeof name, "%lld cubed", (long long)n);
        bench_products(report, be, name, (struct LinearShape){n, n, n});
    }
    if (!model) return;
    int64_t d = model->dim, f = model->ffn_dim, text_rows = batch * model->text_len;
    int64_t rows = batch * (v.frames / model->patch_size[0]) * (v.height / model->patch_size[1]) *
                   (v.width / model->patch_size[2]);
    const struct {
        const char *name;
        struct LinearShape shape;
    } layers[] = {{"q, k, v", {rows, d, 3 * d}},
                  {"projection", {rows, d, d}},
                  {"text k, v", {text_rows, d, 2 * d}},
                  {"ffn up", {rows, d, f}},
                  {"ffn down", {rows, f, d}}};
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        char name[80];
        struct LinearShape s = layers[i].shape;
        snprintf(name, sizeof name, "%s %lld x %lld -> %lld", layers[i].name, (long long)s.rows,
                 (long long)s.n_in, (long long)s.n_out);
        bench_products(report, be, name, s);
    }
}
