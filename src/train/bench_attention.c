/* A block's two attentions. */
#include <stdio.h>

#include "train/bench.h"

struct Attention {
    struct BenchOperands operands;
    struct AttentionShape shape;
    Act *q, *k, *v, *o, *dq, *dk, *dv, *grad_o;
    float *lse;
};

/* q and k dense, as the norms leave them; v a slice of rows of v_stride, as projections leave it.
 */
static struct Attention attention_make(const struct Backend *be, const struct BenchSize *size,
                                       int64_t k_tokens, int64_t v_stride) {
    const struct ModelConfig *m = size->model;
    struct AttentionShape s = {.batch = size->batch,
                               .heads = m->num_heads,
                               .head_dim = m->dim / m->num_heads,
                               .q_tokens = bench_tokens(size),
                               .k_tokens = k_tokens,
                               .q_stride = m->dim,
                               .k_stride = m->dim,
                               .v_stride = v_stride,
                               .o_stride = m->dim};
    struct Attention a = {.operands = {.be = be}, .shape = s};
    int64_t n_q = s.batch * s.q_tokens * m->dim, n_k = s.batch * k_tokens * m->dim;
    int64_t n_projected = s.batch * k_tokens * v_stride;
    Act **like_q[] = {&a.q, &a.o, &a.dq, &a.grad_o};
    for (int i = 0; i < 4; i++) *like_q[i] = bench_acts(&a.operands, n_q);
    a.k = bench_acts(&a.operands, n_k);
    a.dk = bench_acts(&a.operands, n_k);
    a.v = act_at(be, bench_acts(&a.operands, n_projected), v_stride - m->dim);
    a.dv = act_at(be, bench_acts(&a.operands, n_projected), v_stride - m->dim);
    a.lse = bench_zero_floats(&a.operands, s.batch * s.heads * s.q_tokens);
    return a;
}

static void run_forward(const struct Backend *be, void *context) {
    const struct Attention *a = context;
    be->attention_forward(be, a->o, a->lse, a->q, a->k, a->v, a->shape);
}

static void run_backward(const struct Backend *be, void *context) {
    const struct Attention *a = context;
    be->attention_backward(be, a->dq, a->dk, a->dv, a->grad_o, a->o, a->lse, a->q, a->k, a->v,
                           a->shape);
}

struct AttentionSeconds {
    double forward, backward;
};

static struct AttentionSeconds measure(struct BenchReport *report, struct Attention a,
                                       const char *name) {
    const struct Backend *be = a.operands.be;
    char row[96];
    struct OpTally forward = bench_measure(report, be, run_forward, &a);
    struct OpTally backward = bench_measure(report, be, run_backward, &a);
    snprintf(row, sizeof row, "%s, forward", name);
    bench_row(report, row, forward);
    snprintf(row, sizeof row, "%s, backward", name);
    bench_row(report, row, backward);
    bench_operands_free(&a.operands);
    return (struct AttentionSeconds){forward.seconds, backward.seconds};
}

/* The seconds of ours; beside them those of the best plan that the library has.  The goal is to be as
 * quick, and what two measurements of the same may differ by is left out of it. */
static struct AttentionSeconds measure_both(struct BenchReport *report,
                                            const struct BenchBackends *backends,
                                            const struct BenchSize *size, int64_t k_tokens,
                                            int64_t v_stride, const char *name) {
    char text[64];
    struct AttentionSeconds ours =
        measure(report, attention_make(backends->be, size, k_tokens, v_stride), name);
    snprintf(text, sizeof text, "%s, best plan", name);
    struct AttentionSeconds best =
        measure(report, attention_make(backends->every_plan, size, k_tokens, v_stride), text);
    snprintf(text, sizeof text, "%s, forward: time of the best plan / ours", name);
    bench_ratio(report, text, best.forward / ours.forward, BENCH_AT_LEAST, 0.99);
    snprintf(text, sizeof text, "%s, backward: time of the best plan / ours", name);
    bench_ratio(report, text, best.backward / ours.backward, BENCH_AT_LEAST, 0.99);
    return ours;
}

double bench_attention(struct BenchReport *report, const struct BenchBackends *backends,
                       const struct BenchSize *size) {
    const struct ModelConfig *m = size->model;
    int64_t tokens = bench_tokens(size);
    bench_section(report, "attention: %lld heads of %lld, batch %lld x %lld tokens, text of %lld",
                  (long long)m->num_heads, (long long)(m->dim / m->num_heads),
                  (long long)size->batch, (long long)tokens, (long long)m->text_len);
    struct AttentionSeconds to_self =
        measure_both(report, backends, size, tokens, 3 * m->dim, "to itself");
    struct AttentionSeconds to_text =
        measure_both(report, backends, size, m->text_len, 2 * m->dim, "to text");
    struct AttentionSeconds same =
        measure(report, attention_make(backends->deterministic, size, tokens, 3 * m->dim),
                "to itself, deterministic");
    bench_ratio(report, "deterministic backward / backward", same.backward / to_self.backward,
                BENCH_AT_MOST, 1.25);
    return to_self.forward + to_self.backward + to_text.forward + to_text.backward;
}
