/* Operations that pass over memory once: a block's, at its own shapes, and the optimizer's, over as
 * many parameters as the block's feed-forward layers have.  What they can reach is the bandwidth of
 * a copy. */
#include "train/bench.h"

enum { CHUNKS = 6 }; /* of a block's modulation */

struct Elementwise {
    struct BenchOperands operands;
    struct NormShape norm;
    struct QkNormShape qk;
    int64_t n_acts, n_params;
    Act *x, *h, *y, *dy, *qkv; /* [rows, dim]; qkv [rows, 3 dim] */
    float *mean, *rstd, *modulation, *dmodulation, *weight, *dweight, *cos_sin;
    float *master, *gradient, *m, *v;
    double *sum;
    Act *compute;
};

static struct Elementwise elementwise_make(const struct Backend *be, const struct BenchSize *size) {
    const struct ModelConfig *c = size->model;
    int64_t tokens = bench_tokens(size), rows = size->batch * tokens;
    float eps = (float)c->eps;
    struct Elementwise e = {.operands = {.be = be},
                            .norm = {size->batch, tokens, c->dim, CHUNKS * c->dim, 1.0f, eps},
                            .qk = {size->batch, tokens, c->dim, c->num_heads, 3 * c->dim, eps},
                            .n_acts = rows * c->dim,
                            .n_params = 2 * c->dim * c->ffn_dim};
    struct BenchOperands *o = &e.operands;
    Act **acts[] = {&e.x, &e.h, &e.y, &e.dy};
    for (int i = 0; i < 4; i++) *acts[i] = bench_acts(o, e.n_acts);
    e.qkv = bench_acts(o, 3 * e.n_acts);
    e.mean = bench_zero_floats(o, rows);
    e.rstd = bench_zero_floats(o, rows);
    e.modulation = bench_floats(o, size->batch * CHUNKS * c->dim);
    e.dmodulation = bench_zero_floats(o, size->batch * CHUNKS * c->dim);
    e.weight = bench_floats(o, c->dim);
    e.dweight = bench_zero_floats(o, c->dim);
    e.cos_sin = bench_floats(o, tokens * c->dim / c->num_heads);
    float **params[] = {&e.master, &e.gradient, &e.m};
    for (int i = 0; i < 3; i++) *params[i] = bench_floats(o, e.n_params);
    e.v = bench_zero_floats(o, e.n_params);
    e.compute = bench_acts(o, e.n_params);
    e.sum = (double *)(void *)bench_zero_floats(o, 2);
    return e;
}

static void run_layer_norm(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->layer_norm_forward(be, e->y, e->mean, e->rstd, e->x, e->modulation,
                           e->modulation + e->norm.dim, e->norm);
}
static void run_layer_norm_backward(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->layer_norm_backward(be, e->dy, e->dmodulation, e->dmodulation + e->norm.dim, e->h, e->x,
                            e->mean, e->rstd, e->modulation, e->norm, true);
}
static void run_gate(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->gate_forward(be, e->y, e->x, e->h, e->modulation, e->norm);
}
static void run_gate_norm(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->gate_norm_forward(be, e->dy, e->y, e->mean, e->rstd, e->x, e->h, e->modulation,
                          e->norm.stride, e->modulation, e->modulation + e->norm.dim, e->norm);
}
static void run_gate_backward(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->gate_backward(be, e->y, e->dmodulation, e->dy, e->h, e->modulation, e->norm);
}
static void run_qk_norm(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->qk_norm_forward(be, e->y, e->rstd, e->qkv, e->weight, e->cos_sin, e->qk);
}
static void run_qk_norm_backward(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    Act *dqkv = act_at(be, e->qkv, e->norm.dim); /* another slice of the same rows */
    be->qk_norm_backward(be, dqkv, e->dweight, e->h, e->qkv, e->rstd, e->weight, e->cos_sin, e->qk);
}
static void run_mix(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->mix_forward(be, e->y, e->x, e->h, e->weight, e->n_acts);
}
static void run_mix_backward(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->mix_backward(be, e->y, e->qkv, e->dweight, e->dy, e->x, e->h, e->weight, e->n_acts);
}
static void run_act_add(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->act_add(be, e->y, e->x, e->h, e->n_acts);
}
static void run_norm_squared(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->norm_squared(be, e->sum, e->gradient, e->n_params);
}
static void run_adamw(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    struct AdamW how = {1e-5, 0.9, 0.95, 1e-8, 0.01, 1.0, 100};
    be->adamw(be, e->master, e->compute, e->m, e->v, e->gradient, how, e->n_params);
}
static void run_ema(const struct Backend *be, void *context) {
    const struct Elementwise *e = context;
    be->ema_update(be, e->m, e->master, 0.999, e->n_params);
}

static const struct {
    const char *name;
    BenchRun run;
} passes[] = {
    {"layer norm, modulation", run_layer_norm},
    {"layer norm, modulation: backward, accumulates", run_layer_norm_backward},
    {"gate, residual", run_gate},
    {"gate, residual, next layer norm", run_gate_norm},
    {"gate: backward", run_gate_backward},
    {"RMS norm of q or k, rotary", run_qk_norm},
    {"RMS norm of q or k, rotary: backward", run_qk_norm_backward},
    {"gated fusion", run_mix},
    {"gated fusion: backward", run_mix_backward},
    {"sum of two", run_act_add},
    {"squared norm of a gradient", run_norm_squared},
    {"AdamW", run_adamw},
    {"EMA", run_ema},
};

void bench_elementwise(struct BenchReport *report, const struct Backend *be,
                       const struct BenchSize *size) {
    struct Elementwise e = elementwise_make(be, size);
    double least = 0.0;
    bench_section(report, "passes over memory: %lld x %lld activations, %lld parameters",
                  (long long)(e.norm.batch * e.norm.tokens), (long long)e.norm.dim,
                  (long long)e.n_params);
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
        struct OpTally tally = bench_measure(report, be, passes[i].run, &e);
        double share = bench_floor_share(report, tally);
        bench_row(report, passes[i].name, tally);
        if (i == 0 || share < least) least = share;
    }
    bench_ratio(report, "the lowest share of the copy bandwidth", least, BENCH_AT_LEAST, 0.85);
    bench_operands_free(&e.operands);
}
