/* Matrix products, in the forms that a linear layer has. */
#include <stdio.h>

#include "train/bench.h"

enum Form { NT, NN, TN, NT_GELU, NN_GELU, TN_BIAS, FORMS, BARE_FORMS = 3 };

struct Product {
    struct BenchOperands operands;
    struct LinearShape shape;
    Act *x, *w, *y, *bias; /* [rows, n_in], [n_out, n_in], [rows, n_out], [n_out] */
    Act *pre;              /* like the larger of x and y */
    float *dw, *db;
};

static void run_forward(const struct Backend *be, void *context) {
    const struct Product *p = context;
    be->linear_forward(be, p->y, p->x, p->w, p->bias, p->shape);
}
static void run_backward_input(const struct Backend *be, void *context) {
    const struct Product *p = context;
    be->linear_backward_input(be, p->x, p->y, p->w, p->shape, false);
}
static void run_backward_params(const struct Backend *be, void *context) {
    const struct Product *p = context;
    be->linear_backward_params(be, p->dw, NULL, p->x, p->y, p->shape);
}
static void run_gelu(const struct Backend *be, void *context) {
    const struct Product *p = context;
    be->linear_gelu_forward(be, p->y, p->pre, p->x, p->w, p->bias, p->shape);
}
static void run_gelu_backward(const struct Backend *be, void *context) {
    const struct Product *p = context;
    be->linear_gelu_backward_input(be, p->x, p->y, p->w, p->pre, p->shape);
}
static void run_bias_backward(const struct Backend *be, void *context) {
    const struct Product *p = context;
    be->linear_backward_params(be, p->dw, p->db, p->x, p->y, p->shape);
}

static const struct {
    const char *name;
    BenchRun run;
} forms[FORMS] = {
    [NT] = {"NT", run_forward},
    [NN] = {"NN", run_backward_input},
    [TN] = {"TN", run_backward_params},
    [NT_GELU] = {"NT, GELU", run_gelu},
    [NN_GELU] = {"NN, GELU'", run_gelu_backward},
    [TN_BIAS] = {"TN, bias gradient", run_bias_backward},
};

static struct Product product_make(const struct Backend *be, struct LinearShape s) {
    struct Product p = {.operands = {.be = be}, .shape = s};
    p.x = bench_acts(&p.operands, s.rows * s.n_in);
    p.w = bench_acts(&p.operands, s.n_out * s.n_in);
    p.y = bench_acts(&p.operands, s.rows * s.n_out);
    p.bias = bench_acts(&p.operands, s.n_out);
    p.pre = bench_acts(&p.operands, s.rows * (s.n_in > s.n_out ? s.n_in : s.n_out));
    p.dw = bench_zero_floats(&p.operands, s.n_out * s.n_in);
    p.db = bench_zero_floats(&p.operands, s.n_out);
    return p;
}

struct OpTally bench_product(struct BenchReport *report, const struct Backend *be,
                             struct LinearShape s) {
    struct Product p = product_make(be, s);
    struct OpTally tally = bench_measure(report, be, run_forward, &p);
    bench_operands_free(&p.operands);
    return tally;
}

/* Measures one form and, with a name, tells of it. */
static double measure_form(struct BenchReport *report, struct Product *p, enum Form form,
                           const char *name) {
    struct OpTally tally = bench_measure(report, p->operands.be, forms[form].run, p);
    char row[96];
    snprintf(row, sizeof row, "%s %s", forms[form].name, name ? name : "");
    if (name) bench_row(report, row, tally);
    return tally.seconds;
}

void bench_squares(struct BenchReport *report, const struct Backend *be) {
    bench_section(report, "matrix products: y = x W^T (NT), dx = dy W (NN), dW += dy^T x (TN)");
    for (int64_t n = 512; n <= 2048; n *= 2) {
        char name[32];
        snprintf(name, sizeof name, "%lld cubed", (long long)n);
        struct Product p = product_make(be, (struct LinearShape){n, n, n});
        for (enum Form form = 0; form < BARE_FORMS; form++) measure_form(report, &p, form, name);
        bench_operands_free(&p.operands);
    }
}

/* ---- the layers of a block */

struct Layer {
    const char *name;
    int count; /* in a block */
    struct LinearShape shape;
    bool gelu_after, gelu_before;
};
enum { LAYERS = 5 };

static void list_layers(const struct BenchSize *size, struct Layer layers[LAYERS]) {
    const struct ModelConfig *m = size->model;
    int64_t d = m->dim, f = m->ffn_dim, rows = size->batch * bench_tokens(size);
    const struct Layer all[LAYERS] = {
        {"q, k, v", 1, {rows, d, 3 * d}, false, false},
        {"projection", 3, {rows, d, d}, false, false}, /* two outputs, one query */
        {"text k, v", 1, {size->batch * m->text_len, d, 2 * d}, false, false},
        {"ffn up", 1, {rows, d, f}, true, false},
        {"ffn down", 1, {rows, f, d}, false, true},
    };
    for (int i = 0; i < LAYERS; i++) layers[i] = all[i];
}

/* Seconds of all products of a block. */
struct LayerSums {
    double bare, with_epilogues;
};

/* Adds the three products of a layer.  `rows`: whether to tell of each, and of the epilogues. */
static void add_layer(struct BenchReport *report, const struct Backend *be,
                      const struct Layer *layer, bool rows, struct LayerSums *sums) {
    const enum Form epilogues[BARE_FORMS] = {layer->gelu_after ? NT_GELU : NT,
                                             layer->gelu_before ? NN_GELU : NN, TN_BIAS};
    struct Product p = product_make(be, layer->shape);
    char name[80];
    snprintf(name, sizeof name, "%s %lld x %lld -> %lld", layer->name, (long long)p.shape.rows,
             (long long)p.shape.n_in, (long long)p.shape.n_out);
    for (enum Form form = 0; form < BARE_FORMS; form++) {
        double bare = measure_form(report, &p, form, rows ? name : NULL), whole = bare;
        if (rows && epilogues[form] != form)
            whole = measure_form(report, &p, epilogues[form], name);
        sums->bare += layer->count * bare;
        sums->with_epilogues += layer->count * whole;
    }
    bench_operands_free(&p.operands);
}

double bench_layers(struct BenchReport *report, const struct BenchBackends *backends,
                    const struct BenchSize *size) {
    struct Layer layers[LAYERS];
    struct LayerSums chosen = {0}, suggested = {0};
    list_layers(size, layers);
    bench_section(report,
                  "a block's products: y = x W^T + b (NT), dx = dy W (NN), dW += dy^T x (TN)");
    for (int i = 0; i < LAYERS; i++) {
        add_layer(report, backends->be, &layers[i], true, &chosen);
        add_layer(report, backends->first_suggestion, &layers[i], false, &suggested);
    }
    bench_ratio(report, "first suggestion's time / that of what is chosen",
                suggested.bare / chosen.bare, BENCH_AT_LEAST, 1.02);
    bench_ratio(report, "with GELU and bias gradients / without",
                chosen.with_epilogues / chosen.bare, BENCH_AT_MOST, 1.03);
    return chosen.bare;
}
