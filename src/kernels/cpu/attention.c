/* Attention in blocks of Q_BLOCK queries by K_BLOCK keys, with the scores transposed: a row of S^T
 * is a key, its columns are queries.  So everything that softmax does runs along vectors of
 * queries, and K, V, P^T serve products as they lie; only what stands on the right of a product is
 * copied.
 *
 * Forward keeps, per query, the running maximum and sum of exponentials and rescales what it has
 * when a later block of keys raises the maximum (Milakov & Gimelshein 2018; Dao et al. 2022).
 * Backward makes the probabilities again from lse.  With P^T = exp(scale k q^T - lse):
 *     dV = P^T dO,  dP^T = V dO^T,  dS^T = P^T (dP^T - delta) scale,  delta = rowsum(dO o),
 *     dQ = dS K,  dK = dS^T Q.
 * The work of one head of one sample stays on one thread, so that its sums have one order. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/tile_gemm.h"
#include "kernels/cpu/transpose.h"
#include "minmax.h"

enum { Q_BLOCK = 128, K_BLOCK = 256, MAX_HEAD_DIM = 512 };

/* A thread's scratch, in floats from its start. */
enum {
    AT_P = 0,                                /* P^T [K_BLOCK, Q_BLOCK] */
    AT_DP = AT_P + K_BLOCK * Q_BLOCK,        /* dP^T, then dS^T */
    AT_QT = AT_DP + K_BLOCK * Q_BLOCK,       /* q^T [head_dim, Q_BLOCK] */
    AT_DOT = AT_QT + MAX_HEAD_DIM * Q_BLOCK, /* dO^T */
    AT_Q = AT_DOT + MAX_HEAD_DIM * Q_BLOCK,  /* q with rows that may be read to a full vector */
    AT_DO = AT_Q + Q_BLOCK * MAX_HEAD_DIM,   /* dO likewise */
    AT_K = AT_DO + Q_BLOCK * MAX_HEAD_DIM,   /* k or v likewise */
    ATTENTION_FLOATS = AT_K + K_BLOCK * MAX_HEAD_DIM
};
_Static_assert((int)ATTENTION_FLOATS <= (int)CPU_SCRATCH_FLOATS, "a thread's scratch");

/* A matrix with rows that may be read up to a full vector: x itself, or a copy. */
struct Padded {
    const float *at;
    int64_t stride;
};

static struct Padded padded(float *scratch, const float *x, int64_t rows, int64_t n,
                            int64_t stride) {
    if (n == tile_padded(n)) return (struct Padded){x, stride};
    for (int64_t i = 0; i < rows; i++)
        memcpy(scratch + i * tile_padded(n), x + i * stride, (size_t)n * sizeof *x);
    return (struct Padded){scratch, tile_padded(n)};
}

/* What forward knows of its queries so far. */
struct Running {
    float max[Q_BLOCK], sum[Q_BLOCK];
};

/* P^T [n, rows] from scores, with the maxima raised to theirs; keep: by how much earlier results
 * shrink. */
static void softmax_block(float *p, int64_t n, int64_t rows, struct Running *r, float *keep) {
    float max[Q_BLOCK], sum[Q_BLOCK] = {0}; /* for the compiler: memory that p does not overlap */
    memcpy(max, r->max, sizeof max);
    for (int64_t j = 0; j < n; j++)
#pragma omp simd
        for (int64_t i = 0; i < rows; i++) {
            float s = p[j * Q_BLOCK + i];
            max[i] = s > max[i] ? s : max[i];
        }
#pragma omp simd
    for (int64_t i = 0; i < rows; i++) {
        keep[i] = fast_exp(r->max[i] - max[i]);
        sum[i] = r->sum[i] * keep[i];
    }
    for (int64_t j = 0; j < n; j++)
#pragma omp simd
        for (int64_t i = 0; i < rows; i++) {
            float e = fast_exp(p[j * Q_BLOCK + i] - max[i]);
            p[j * Q_BLOCK + i] = e;
            sum[i] += e;
        }
    memcpy(r->max, max, sizeof max);
    memcpy(r->sum, sum, sizeof sum);
}

static void scale_rows(float *o, const float *factor, int64_t rows, struct AttentionShape s) {
    for (int64_t i = 0; i < rows; i++)
#pragma omp simd
        for (int64_t c = 0; c < s.head_dim; c++) o[i * s.o_stride + c] *= factor[i];
}

/* `rows` queries against all keys of one head. */
static void forward_rows(float *o, float *lse, const float *q, const float *k, const float *v,
                         int64_t rows, float *scratch, struct AttentionShape s) {
    float scale = 1.0f / sqrtf((float)s.head_dim), *p = scratch + AT_P, *qt = scratch + AT_QT;
    float factor[Q_BLOCK];
    struct Running r = {.sum = {0}};
    for (int64_t i = 0; i < Q_BLOCK; i++) r.max[i] = -FLT_MAX;
    transpose(qt, Q_BLOCK, q, s.q_stride, rows, s.head_dim);
    for (int64_t first = 0; first < s.k_tokens; first += K_BLOCK) {
        int64_t n = smaller(K_BLOCK, s.k_tokens - first);
        struct TileOperand keys = tile_operand(k + first * s.k_stride, s.k_stride, 1);
        struct Padded values =
            padded(scratch + AT_K, v + first * s.v_stride, n, s.head_dim, s.v_stride);
        tile_gemm(n, rows, s.head_dim, scale, keys, qt, Q_BLOCK, (struct TileAddend){0}, p,
                  Q_BLOCK);
        softmax_block(p, n, rows, &r, factor);
        if (first) scale_rows(o, factor, rows, s);
        tile_gemm(rows, s.head_dim, n, 1.0f, tile_operand(p, 1, Q_BLOCK), values.at, values.stride,
                  (struct TileAddend){first ? o : NULL, s.o_stride}, o, s.o_stride);
    }
    for (int64_t i = 0; i < rows; i++) {
        factor[i] = 1.0f / r.sum[i];
        lse[i] = r.max[i] + logf(r.sum[i]);
    }
    scale_rows(o, factor, rows, s);
}

void cpu_attention_forward(const struct Backend *be, Act *o, float *lse, const Act *q, const Act *k,
                           const Act *v, struct AttentionShape s) {
    TMD_CHECK(s.head_dim <= MAX_HEAD_DIM, "head_dim %lld", (long long)s.head_dim);
#pragma omp parallel for schedule(static) collapse(3)
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t h = 0; h < s.heads; h++)
            for (int64_t first = 0; first < s.q_tokens; first += Q_BLOCK) {
                int64_t q_row = b * s.q_tokens + first, k_row = b * s.k_tokens, c = h * s.head_dim;
                forward_rows(act_f32(o) + q_row * s.o_stride + c,
                             lse + (b * s.heads + h) * s.q_tokens + first,
                             act_const_f32(q) + q_row * s.q_stride + c,
                             act_const_f32(k) + k_row * s.k_stride + c,
                             act_const_f32(v) + k_row * s.v_stride + c,
                             smaller(Q_BLOCK, s.q_tokens - first), cpu_thread_scratch(be), s);
            }
}

struct HeadGradients {
    float *dq, *dk, *dv; /* dk, dv: NULL if not wanted */
};
struct HeadInputs {
    const float *grad_o, *o, *lse, *q, *k, *v;
};

/* p holds scores and becomes P^T; dp holds V dO^T and becomes dS^T. */
static void score_gradients(float *p, float *dp, const float *lse, const float *delta, int64_t n,
                            int64_t rows, float scale) {
    for (int64_t j = 0; j < n; j++) {
        float *pj = p + j * Q_BLOCK, *dj = dp + j * Q_BLOCK;
#pragma omp simd
        for (int64_t i = 0; i < rows; i++) {
            pj[i] = fast_exp(pj[i] - lse[i]);
            dj[i] = pj[i] * (dj[i] - delta[i]) * scale;
        }
    }
}

/* The queries of one block, prepared for products. */
struct QueryBlock {
    int64_t first, rows;
    const float *qt, *grad_ot; /* [head_dim, Q_BLOCK] */
    struct Padded q, grad_o;   /* [rows, head_dim] */
    float delta[Q_BLOCK];
};

static void query_block_prepare(struct QueryBlock *b, struct HeadInputs in, int64_t first,
                                float *scratch, struct AttentionShape s) {
    const float *q = in.q + first * s.q_stride, *grad_o = in.grad_o + first * s.o_stride;
    b->first = first;
    b->rows = smaller(Q_BLOCK, s.q_tokens - first);
    transpose(scratch + AT_QT, Q_BLOCK, q, s.q_stride, b->rows, s.head_dim);
    transpose(scratch + AT_DOT, Q_BLOCK, grad_o, s.o_stride, b->rows, s.head_dim);
    b->qt = scratch + AT_QT;
    b->grad_ot = scratch + AT_DOT;
    b->q = padded(scratch + AT_Q, q, b->rows, s.head_dim, s.q_stride);
    b->grad_o = padded(scratch + AT_DO, grad_o, b->rows, s.head_dim, s.o_stride);
    for (int64_t i = 0; i < b->rows; i++) {
        const float *oi = in.o + (first + i) * s.o_stride, *gi = grad_o + i * s.o_stride;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < s.head_dim; j++) sum += oi[j] * gi[j];
        b->delta[i] = sum;
    }
}

/* What one block of queries and the keys from `first` on give each other. */
static void backward_block(struct HeadGradients out, struct HeadInputs in,
                           const struct QueryBlock *b, int64_t first, float *scratch,
                           struct AttentionShape s) {
    const struct TileAddend none = {0};
    int64_t n = smaller(K_BLOCK, s.k_tokens - first), c = s.head_dim;
    const float *k = in.k + first * s.k_stride, *v = in.v + first * s.v_stride;
    float scale = 1.0f / sqrtf((float)c), *p = scratch + AT_P, *dp = scratch + AT_DP;
    tile_gemm(n, b->rows, c, scale, tile_operand(k, s.k_stride, 1), b->qt, Q_BLOCK, none, p,
              Q_BLOCK);
    tile_gemm(n, b->rows, c, 1.0f, tile_operand(v, s.v_stride, 1), b->grad_ot, Q_BLOCK, none, dp,
              Q_BLOCK);
    /* the probability of a single key is 1 whatever its score: nothing for rounding to differ on */
    float sensitivity = s.k_tokens > 1 ? scale : 0.0f;
    score_gradients(p, dp, in.lse + b->first, b->delta, n, b->rows, sensitivity);
    if (out.dk) {
        float *dk = out.dk + first * s.k_stride, *dv = out.dv + first * s.v_stride;
        tile_gemm(n, c, b->rows, 1.0f, tile_operand(p, Q_BLOCK, 1), b->grad_o.at, b->grad_o.stride,
                  (struct TileAddend){b->first ? dv : NULL, s.v_stride}, dv, s.v_stride);
        tile_gemm(n, c, b->rows, 1.0f, tile_operand(dp, Q_BLOCK, 1), b->q.at, b->q.stride,
                  (struct TileAddend){b->first ? dk : NULL, s.k_stride}, dk, s.k_stride);
    }
    float *dq = out.dq + b->first * s.q_stride;
    struct Padded keys = padded(scratch + AT_K, k, n, c, s.k_stride);
    tile_gemm(b->rows, c, n, 1.0f, tile_operand(dp, 1, Q_BLOCK), keys.at, keys.stride,
              (struct TileAddend){first ? dq : NULL, s.q_stride}, dq, s.q_stride);
}

static void backward_head(struct HeadGradients out, struct HeadInputs in, float *scratch,
                          struct AttentionShape s) {
    for (int64_t qi = 0; qi < s.q_tokens; qi += Q_BLOCK) {
        struct QueryBlock block;
        query_block_prepare(&block, in, qi, scratch, s);
        for (int64_t ki = 0; ki < s.k_tokens; ki += K_BLOCK)
            backward_block(out, in, &block, ki, scratch, s);
    }
}

void cpu_attention_backward(const struct Backend *be, Act *dq, Act *dk, Act *dv, const Act *grad_o,
                            const Act *o, const float *lse, const Act *q, const Act *k,
                            const Act *v, struct AttentionShape s) {
    TMD_CHECK(s.head_dim <= MAX_HEAD_DIM, "head_dim %lld", (long long)s.head_dim);
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t h = 0; h < s.heads; h++) {
            int64_t q_row = b * s.q_tokens, k_row = b * s.k_tokens, c = h * s.head_dim;
            int64_t at_q = q_row * s.q_stride + c, at_k = k_row * s.k_stride + c;
            int64_t at_v = k_row * s.v_stride + c, at_o = q_row * s.o_stride + c;
            struct HeadGradients out = {.dq = act_f32(dq) + at_q};
            if (dk) {
                out.dk = act_f32(dk) + at_k;
                out.dv = act_f32(dv) + at_v;
            }
            struct HeadInputs in = {act_const_f32(grad_o) + at_o,
                                    act_const_f32(o) + at_o,
                                    lse + (b * s.heads + h) * s.q_tokens,
                                    act_const_f32(q) + at_q,
                                    act_const_f32(k) + at_k,
                                    act_const_f32(v) + at_v};
            backward_head(out, in, cpu_thread_scratch(be), s);
        }
}
