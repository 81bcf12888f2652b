/* Attention against the naive softmax(q k^T / sqrt(head_dim)) v in double, with token counts around
 * and far beyond the backends' block sizes, and queries and keys of unequal number.
 *
 * The naive backward, needed for the long sequences, is itself held against finite differences of
 * the naive forward on the short ones.  q, k, v and their gradients are slices of [rows, 3 D] (and
 * with fewer keys than queries of [rows, D] and [rows, 2 D], as cross-attention has them). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "op_check.h"

/* Dense arrays: q, o, dout [B, Sq, H, d]; k, v [B, Sk, H, d]; lse [B, H, Sq]. */
struct Attention {
    struct AttentionShape shape;
    double *q, *k, *v, *dout;
    double *o, *lse;
};

struct AttentionGrads {
    double *dq, *dk, *dv;
};

/* Where the vector of a head of a token starts. */
static int64_t vector_at(struct AttentionShape s, int64_t n_tokens, int64_t sample, int64_t token,
                         int64_t head) {
    return ((sample * n_tokens + token) * s.heads + head) * s.head_dim;
}

/* The logits of one query, and their log sum exp. */
static double naive_logits(const struct Attention *p, double *logits, int64_t sample, int64_t head,
                           int64_t query) {
    struct AttentionShape s = p->shape;
    const double *q = p->q + vector_at(s, s.q_tokens, sample, query, head);
    double largest = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < s.k_tokens; j++) {
        const double *k = p->k + vector_at(s, s.k_tokens, sample, j, head);
        logits[j] = op_dot(q, k, s.head_dim) / sqrt((double)s.head_dim);
        largest = fmax(largest, logits[j]);
    }
    for (int64_t j = 0; j < s.k_tokens; j++) sum += exp(logits[j] - largest);
    return largest + log(sum);
}

static void naive_forward(const struct Attention *p) {
    struct AttentionShape s = p->shape;
    double *logits = xmalloc((unsigned long)s.k_tokens * sizeof *logits);
    for (int64_t row = 0; row < s.batch * s.heads * s.q_tokens; row++) {
        int64_t sample = row / s.q_tokens / s.heads, head = row / s.q_tokens % s.heads;
        int64_t query = row % s.q_tokens;
        double *o = p->o + vector_at(s, s.q_tokens, sample, query, head);
        p->lse[row] = naive_logits(p, logits, sample, head, query);
        memset(o, 0, (size_t)s.head_dim * sizeof *o);
        for (int64_t j = 0; j < s.k_tokens; j++) {
            const double *v = p->v + vector_at(s, s.k_tokens, sample, j, head);
            double probability = exp(logits[j] - p->lse[row]);
            for (int64_t d = 0; d < s.head_dim; d++) o[d] += probability * v[d];
        }
    }
    free(logits);
}

static double attention_loss(const void *problem) {
    const struct Attention *p = problem;
    naive_forward(p);
    return op_dot(p->o, p->dout,
                  p->shape.batch * p->shape.q_tokens * p->shape.heads * p->shape.head_dim);
}

/* With P the probabilities, dP = dO v^T and D = rowsum(dO o):
 *     dv = P^T dO,  dS = P (dP - D) / sqrt(head_dim),  dq = dS k,  dk = dS^T q.
 * D is left out when the planted bug asks for that. */
static void naive_backward(const struct Attention *p, struct AttentionGrads *g, bool with_d) {
    struct AttentionShape s = p->shape;
    double *logits = xmalloc((unsigned long)s.k_tokens * sizeof *logits);
    for (int64_t row = 0; row < s.batch * s.heads * s.q_tokens; row++) {
        int64_t sample = row / s.q_tokens / s.heads, head = row / s.q_tokens % s.heads;
        int64_t at = vector_at(s, s.q_tokens, sample, row % s.q_tokens, head);
        double lse = naive_logits(p, logits, sample, head, row % s.q_tokens);
        double row_d = with_d ? op_dot(p->dout + at, p->o + at, s.head_dim) : 0.0;
        for (int64_t j = 0; j < s.k_tokens; j++) {
            int64_t to = vector_at(s, s.k_tokens, sample, j, head);
            double probability = exp(logits[j] - lse);
            double dp = op_dot(p->dout + at, p->v + to, s.head_dim);
            double ds = probability * (dp - row_d) / sqrt((double)s.head_dim);
            for (int64_t d = 0; d < s.head_dim; d++) {
                g->dq[at + d] += ds * p->k[to + d];
                g->dk[to + d] += ds * p->q[at + d];
                g->dv[to + d] += probability * p->dout[at + d];
            }
        }
    }
    free(logits);
}

struct Size {
    int64_t batch, heads, head_dim, q_tokens, k_tokens;
    double q_scale; /* large: the softmax saturates, and exp overflows where it is not guarded */
};

static const struct Size sizes[] = {
    {2, 1, 12, 5, 7, 1},
    {1, 3, 18, 7, 5, 1},
    {2, 4, 12, 1, 3, 1},
    {1, 2, 24, 6, 6, 4},
    {1, 2, 12, 63, 64, 1},
    {2, 1, 18, 64, 65, 1},
    {1, 3, 24, 65, 63, 1},
    {1, 1, 128, 77, 200, 1},
    {1, 4, 12, 200, 77, 1},
    {1, 1, 24, 700, 700, 1},
    {2, 2, 18, 700, 129, 1},
    {1, 1, 12, 5, 1300, 1},
    {1, 2, 36, 1, 512, 1},
    {1, 1, 128, 65, 65, 40},
    {1, 1, 12, 260, 513, 1},
    /* heads of the widths for which there are fast kernels, and the widest of all */
    {2, 3, 64, 130, 130, 1},
    {1, 2, 64, 64, 200, 4},
    {2, 2, 128, 70, 33, 1},
    {1, 1, 160, 33, 40, 1},
    {1, 1, 512, 9, 11, 1},
};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

struct AttentionCase {
    struct OpCase c;
    struct AttentionShape s;
    struct OpTensor *q, *k, *v;
    struct OpTensor *o; /* what backward is given */
    struct Attention p;
    double q_scale;
};

static void attention_begin(struct AttentionCase *a, void *suite, const char *what, struct Size z) {
    struct OpCase *c = &a->c;
    op_case_begin(c, suite, "%s batch %d heads %d x %d tokens %d x %d scale %g", what, (int)z.batch,
                  (int)z.heads, (int)z.head_dim, (int)z.q_tokens, (int)z.k_tokens, z.q_scale);
    int64_t dim = z.heads * z.head_dim, q_rows = z.batch * z.q_tokens,
            k_rows = z.batch * z.k_tokens;
    bool self = z.q_tokens == z.k_tokens;
    struct AttentionShape s = {z.batch, z.heads, z.head_dim, z.q_tokens, z.k_tokens, 0, 0, 0, 0};
    /* gaps between rows that keep them as aligned as the heads are */
    s.o_stride = z.q_tokens % 2 ? dim : dim + (z.head_dim % 8 ? 4 : 8);
    s.q_stride = self ? 3 * dim : dim;
    s.k_stride = s.v_stride = self ? 3 * dim : 2 * dim;
    a->s = s;
    a->q = op_strided(c, OP_INPUT, "q", OP_ACT, q_rows, dim, s.q_stride, 0);
    a->k = op_strided(c, OP_INPUT, "k", OP_ACT, k_rows, dim, s.k_stride, self ? dim : 0);
    a->v = op_strided(c, OP_INPUT, "v", OP_ACT, k_rows, dim, s.v_stride, self ? 2 * dim : dim);
    op_rescale(c, a->q, z.q_scale, 0.0);
    a->q_scale = z.q_scale;
    a->p = (struct Attention){.shape = s, .q = a->q->values, .k = a->k->values, .v = a->v->values};
    a->p.o = op_array(c, a->q->n_elems);
    a->p.lse = op_array(c, z.batch * z.heads * z.q_tokens);
    naive_forward(&a->p);
}

/* Large logits carry large rounding errors; only those of float32, as the operands are exact. */
static double tolerance_of(const struct AttentionCase *a, const struct OpTensor *t) {
    int64_t reduction = a->s.head_dim + a->s.k_tokens + a->s.q_tokens;
    return 2.0 * op_tolerance(t, 1) +
           8.0 * a->q_scale * op_roundoff(DTYPE_F32) * sqrt((double)reduction);
}

/* A tensor with the layout of o. */
static struct OpTensor *output_like(struct OpCase *c, const struct AttentionCase *a,
                                    enum OpRole role, const char *name) {
    return op_strided(c, role, name, OP_ACT, a->q->rows, a->q->cols, a->s.o_stride, 0);
}

static void test_forward(void **state) {
    for (int i = 0; i < N_SIZES; i++) {
        struct AttentionCase a;
        attention_begin(&a, *state, "attention_forward", sizes[i]);
        struct OpCase *c = &a.c;
        struct OpTensor *o = output_like(c, &a, OP_OVERWRITTEN, "o");
        struct OpTensor *lse = op_output(c, "lse", OP_F32, a.s.batch * a.s.heads, a.s.q_tokens);
        c->be->attention_forward(c->be, op_act(o), op_f32(lse), op_act(a.q), op_act(a.k),
                                 op_act(a.v), a.s);
        op_check_values(c, lse, a.p.lse, tolerance_of(&a, lse));
        op_check_values(c, o, a.p.o, tolerance_of(&a, o));
        op_case_end(c);
    }
}

static struct AttentionGrads grads_alloc(struct OpCase *c, const struct AttentionCase *a) {
    struct AttentionGrads g = {op_array(c, a->q->n_elems), op_array(c, a->k->n_elems),
                               op_array(c, a->v->n_elems)};
    return g;
}

static void check_naive_backward(struct AttentionCase *a) {
    struct OpCase *c = &a->c;
    struct AttentionGrads g = grads_alloc(c, a);
    naive_backward(&a->p, &g, true);
    double *dq = op_finite_differences(c, a->p.q, a->q->n_elems, attention_loss, &a->p);
    double *dk = op_finite_differences(c, a->p.k, a->k->n_elems, attention_loss, &a->p);
    double *dv = op_finite_differences(c, a->p.v, a->v->n_elems, attention_loss, &a->p);
    op_check_references(c, "dq", g.dq, dq, a->q->n_elems);
    op_check_references(c, "dk", g.dk, dk, a->k->n_elems);
    op_check_references(c, "dv", g.dv, dv, a->v->n_elems);
}

static struct OpTensor *gradient_of(struct OpCase *c, const struct OpTensor *t, const char *name) {
    return op_strided(c, OP_OVERWRITTEN, name, OP_ACT, t->rows, t->cols, t->stride, t->offset);
}

/* Runs attention_backward on the naive o and lse; the gradients appear as tensors, dk and dv as
 * NULL when only dq is wanted. */
static void run_backward(struct AttentionCase *a, struct OpTensor *grads[3], bool only_dq) {
    struct OpCase *c = &a->c;
    struct OpTensor *dout = output_like(c, a, OP_INPUT, "dout");
    a->o = output_like(c, a, OP_INPUT, "o");
    struct OpTensor *lse = op_input(c, "lse", OP_F32, a->s.batch * a->s.heads, a->s.q_tokens);
    op_put(c, a->o, a->p.o);
    op_put(c, lse, a->p.lse);
    a->p.dout = dout->values;
    grads[0] = gradient_of(c, a->q, "dq");
    grads[1] = only_dq ? NULL : gradient_of(c, a->k, "dk");
    grads[2] = only_dq ? NULL : gradient_of(c, a->v, "dv");
    c->be->attention_backward(c->be, op_act(grads[0]), op_act(grads[1]), op_act(grads[2]),
                              op_act(dout), op_act(a->o), op_f32(lse), op_act(a->q), op_act(a->k),
                              op_act(a->v), a->s);
}

static void check_backward(void *suite, struct Size size, bool only_dq) {
    struct AttentionCase a;
    struct OpTensor *got[3];
    attention_begin(&a, suite, only_dq ? "attention_backward dq" : "attention_backward", size);
    run_backward(&a, got, only_dq);
    struct OpCase *c = &a.c;
    if (a.s.q_tokens * a.s.k_tokens < 50) check_naive_backward(&a);
    a.p.o = a.o->values; /* from here on as rounded as the operation saw it */
    struct AttentionGrads right = grads_alloc(c, &a), wrong = grads_alloc(c, &a);
    naive_backward(&a.p, &right, true);
    naive_backward(&a.p, &wrong, false);
    double tolerance = tolerance_of(&a, got[0]);
    op_check_gradient(c, got[0], right.dq, tolerance);
    if (!only_dq) {
        op_check_gradient(c, got[1], right.dk, tolerance);
        op_check_gradient(c, got[2], right.dv, tolerance);
    }
    if (a.s.k_tokens < 100) { /* the average of many values is near 0, and D with it */
        op_check_rejects(c, got[0], right.dq, wrong.dq, tolerance, "D left out of dq");
        if (!only_dq)
            op_check_rejects(c, got[1], right.dk, wrong.dk, tolerance, "D left out of dk");
    }
    op_case_end(c);
}

static void test_backward(void **state) {
    for (int i = 0; i < N_SIZES; i++) check_backward(*state, sizes[i], false);
}

/* Keys and values that come from frozen text need no gradients. */
static void test_backward_of_queries_only(void **state) {
    for (int i = 0; i < N_SIZES; i++)
        if (sizes[i].q_tokens != sizes[i].k_tokens) check_backward(*state, sizes[i], true);
}

/* One key: its probability is 1 whatever the query, so that o = v and only dv is not zero. */
static void check_single_key(void *suite, struct Size size) {
    struct AttentionCase a;
    struct OpTensor *got[3];
    attention_begin(&a, suite, "attention_backward", size);
    run_backward(&a, got, false);
    struct OpCase *c = &a.c;
    struct AttentionGrads right = grads_alloc(c, &a);
    naive_backward(&a.p, &right, true);
    op_check_vanishes(c, got[0], 0.0);
    op_check_vanishes(c, got[1], 0.0);
    op_check_gradient(c, got[2], right.dv, op_tolerance(got[2], a.s.q_tokens));
    op_case_end(c);
}

static void test_single_key(void **state) {
    check_single_key(*state, (struct Size){2, 2, 12, 9, 1, 1});
    check_single_key(*state, (struct Size){1, 2, 64, 33, 1, 1});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_backward_of_queries_only),
        cmocka_unit_test(test_single_key),
    };
    return op_run_tests("attention", tests, sizeof tests / sizeof *tests);
}
