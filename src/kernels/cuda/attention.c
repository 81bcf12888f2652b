/* Attention through cuDNN where it can, through kernels of ours where it cannot. */
#include <math.h>

#include "kernels/cuda/attention_backward.h"
#include "kernels/cuda/attention_graph.h"
#include "kernels/cuda/attention_plain.h"

enum { WIDEST_HEAD = 128 /* that all architectures take backward */ };

static bool is_aligned(const void *at) {
    return (uintptr_t)at % CUDNN_TENSOR_ALIGNMENT == 0;
}

static bool rows_aligned(const struct Backend *be, const Act *rows, int64_t stride) {
    return is_aligned(rows) && stride * dtype_bytes(be->act_dtype) % CUDNN_TENSOR_ALIGNMENT == 0;
}

/* What cuDNN needs not be asked.  One key is excluded because gradients that vanish must be 0
 * exactly, and rounding leaves an engine with something else. */
static bool shape_fits(const struct Backend *be, const struct AttentionShape *s) {
    return be->act_dtype == DTYPE_BF16 && s->head_dim % 8 == 0 && s->head_dim <= WIDEST_HEAD &&
           s->k_tokens > 1;
}

static bool inputs_fit(const struct Backend *be, const Act *q, const Act *k, const Act *v,
                       const Act *o, const struct AttentionShape *s) {
    return rows_aligned(be, q, s->q_stride) && rows_aligned(be, k, s->k_stride) &&
           rows_aligned(be, v, s->v_stride) && rows_aligned(be, o, s->o_stride);
}

static bool forward_by_cudnn(const struct Backend *be, Act *o, float *lse, const Act *q,
                             const Act *k, const Act *v, const struct AttentionShape *s) {
    const float scale = 1.0f / sqrtf((float)s->head_dim);
    const struct AttentionGraphKey key = {.shape = *s, .all_queries = s->q_tokens};
    const struct CudnnGraph graph = {.what = "attention forward",
                                     .describe = attention_describe_forward,
                                     .key = &key,
                                     .key_bytes = sizeof key};
    const struct CudnnBinding bindings[] = {{ATTENTION_Q, q},     {ATTENTION_K, k},
                                            {ATTENTION_V, v},     {ATTENTION_O, o},
                                            {ATTENTION_LSE, lse}, {ATTENTION_SCALE, &scale}};
    return cudnn_graph_run(be, &graph, bindings, sizeof bindings / sizeof *bindings,
                           cudnn_scratch_after(be, 0));
}

void cuda_attention_forward(const struct Backend *be, Act *o, float *lse, const Act *q,
                            const Act *k, const Act *v, struct AttentionShape s) {
    if (shape_fits(be, &s) && inputs_fit(be, q, k, v, o, &s) && is_aligned(lse) &&
        forward_by_cudnn(be, o, lse, q, k, v, &s))
        return;
    attention_plain_forward(be, o, lse, q, k, v, s);
}

void cuda_attention_backward(const struct Backend *be, Act *dq, Act *dk, Act *dv, const Act *grad_o,
                             const Act *o, const float *lse, const Act *q, const Act *k,
                             const Act *v, struct AttentionShape s) {
    const struct AttentionOperands operands = {dq, dk, dv, grad_o, o, q, k, v, lse};
    if (shape_fits(be, &s) && inputs_fit(be, q, k, v, o, &s) && is_aligned(lse) &&
        inputs_fit(be, dq, dk, dv, grad_o, &s) && attention_backward_by_cudnn(be, &operands, &s))
        return;
    attention_plain_backward(be, dq, dk, dv, grad_o, o, lse, q, k, v, s);
}
