/* Attention in blocks of Q_BLOCK queries by K_BLOCK keys.
 *
 * Forward keeps, per query, the running maximum and sum of exponentials and rescales what it has when
 * a later block of keys raises the maximum (Milakov & Gimelshein 2018; Dao et al. 2022).
 * Backward makes the probabilities again from lse.  With P = exp(scale q k^T - lse):
 *     dV = P^T dO,  dP = dO V^T,  dS = P (dP - delta) scale,  delta = rowsum(dO o),
 *     dQ = dS K,  dK = dS^T Q.
 * The work of one head of one sample stays on one thread, so that its sums have one order. */
#include <float.h>
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_math.h"

enum { Q_BLOCK = 128, K_BLOCK = 512 };
_Static_assert(2 * Q_BLOCK * K_BLOCK <= CPU_SCRATCH_FLOATS, "two panels per thread");

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Replaces a row of scores by exp(score - max) and returns their sum. */
static float exp_row(float *p, int64_t n, float max) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        p[j] = fast_exp(p[j] - max);
        sum += p[j];
    }
    return sum;
}

static float max_row(const float *p, int64_t n, float max) {
#pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < n; j++) max = p[j] > max ? p[j] : max;
    return max;
}

/* `rows` queries against all keys of one head. */
static void forward_rows(float *o, float *lse, const float *q, const float *k, const float *v,
                         int64_t rows, float *p, struct AttentionShape s) {
    float scale = 1.0f / sqrtf((float)s.head_dim), max[Q_BLOCK], sum[Q_BLOCK];
    for (int64_t first = 0; first < s.k_tokens; first += K_BLOCK) {
        int64_t n = smaller(K_BLOCK, s.k_tokens - first);
        cpu_gemm('N', 'T', rows, n, s.head_dim, scale, q, s.q_stride, k + first * s.k_stride,
                 s.k_stride, 0.0f, p, n);
        for (int64_t i = 0; i < rows; i++) {
            float old = first ? max[i] : -FLT_MAX, now = max_row(p + i * n, n, old);
            float block_sum = exp_row(p + i * n, n, now);
            if (first) {
                float keep = fast_exp(old - now), *oi = o + i * s.o_stride;
                for (int64_t j = 0; j < s.head_dim; j++) oi[j] *= keep;
                sum[i] = sum[i] * keep + block_sum;
            } else {
                sum[i] = block_sum;
            }
            max[i] = now;
        }
        cpu_gemm('N', 'N', rows, s.head_dim, n, 1.0f, p, n, v + first * s.v_stride, s.v_stride,
                 first ? 1.0f : 0.0f, o, s.o_stride);
    }
    for (int64_t i = 0; i < rows; i++) {
        float inverse = 1.0f / sum[i], *oi = o + i * s.o_stride;
        for (int64_t j = 0; j < s.head_dim; j++) oi[j] *= inverse;
        lse[i] = max[i] + logf(sum[i]);
    }
}

void cpu_attention_forward(const struct Backend *be, Act *o, float *lse, const Act *q, const Act *k,
                           const Act *v, struct AttentionShape s) {
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
    float *dq, *dk, *dv;
};
struct HeadInputs {
    const float *grad_o, *o, *lse, *q, *k, *v;
};

/* p holds scores and becomes P; dp holds dO V^T and becomes dS. */
static void score_gradients(float *p, float *dp, const float *lse, const float *delta, int64_t rows,
                            int64_t n, float scale) {
    for (int64_t i = 0; i < rows; i++) {
        float *pi = p + i * n, *di = dp + i * n, l = lse[i], d = delta[i];
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            pi[j] = fast_exp(pi[j] - l);
            di[j] = pi[j] * (di[j] - d) * scale;
        }
    }
}

static void backward_head(struct HeadGradients out, struct HeadInputs in, float *p,
                          struct AttentionShape s) {
    float scale = 1.0f / sqrtf((float)s.head_dim), delta[Q_BLOCK];
    float *dp = p + Q_BLOCK * K_BLOCK;
    for (int64_t qi = 0; qi < s.q_tokens; qi += Q_BLOCK) {
        int64_t rows = smaller(Q_BLOCK, s.q_tokens - qi);
        const float *q = in.q + qi * s.q_stride, *grad_o = in.grad_o + qi * s.o_stride;
        for (int64_t i = 0; i < rows; i++) {
            const float *oi = in.o + (qi + i) * s.o_stride, *gi = grad_o + i * s.o_stride;
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < s.head_dim; j++) sum += oi[j] * gi[j];
            delta[i] = sum;
        }
        for (int64_t ki = 0; ki < s.k_tokens; ki += K_BLOCK) {
            int64_t n = smaller(K_BLOCK, s.k_tokens - ki), c = s.head_dim;
            const float *k = in.k + ki * s.k_stride, *v = in.v + ki * s.v_stride;
            float keep_k = qi ? 1.0f : 0.0f, keep_q = ki ? 1.0f : 0.0f;
            cpu_gemm('N', 'T', rows, n, c, scale, q, s.q_stride, k, s.k_stride, 0.0f, p, n);
            cpu_gemm('N', 'T', rows, n, c, 1.0f, grad_o, s.o_stride, v, s.v_stride, 0.0f, dp, n);
            score_gradients(p, dp, in.lse + qi, delta, rows, n, scale);
            if (out.dk) {
                cpu_gemm('T', 'N', n, c, rows, 1.0f, p, n, grad_o, s.o_stride, keep_k,
                         out.dv + ki * s.v_stride, s.v_stride);
                cpu_gemm('T', 'N', n, c, rows, 1.0f, dp, n, q, s.q_stride, keep_k,
                         out.dk + ki * s.k_stride, s.k_stride);
            }
            cpu_gemm('N', 'N', rows, c, n, 1.0f, dp, n, k, s.k_stride, keep_q,
                     out.dq + qi * s.q_stride, s.q_stride);
        }
    }
}

void cpu_attention_backward(const struct Backend *be, Act *dq, Act *dk, Act *dv, const Act *grad_o,
                            const Act *o, const float *lse, const Act *q, const Act *k, const Act *v,
                            struct AttentionShape s) {
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
            struct HeadInputs in = {act_const_f32(grad_o) + at_o, act_const_f32(o) + at_o,
                                    lse + (b * s.heads + h) * s.q_tokens, act_const_f32(q) + at_q,
                                    act_const_f32(k) + at_k, act_const_f32(v) + at_v};
            backward_head(out, in, cpu_thread_scratch(be), s);
        }
}
