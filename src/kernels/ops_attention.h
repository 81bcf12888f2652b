/* Scaled dot-product attention without a mask:  o = softmax(q k^T / sqrt(head_dim)) v  per sample and
 * head.  Computed block by block, so that no [S, S] matrix is ever stored (Dao et al. 2022); the row
 * statistics lse = log sum exp are what backward needs to make the probabilities again. */
#ifndef TMD_OPS_ATTENTION_H
#define TMD_OPS_ATTENTION_H

/* q, o [B, q_tokens, heads, head_dim] and k, v [B, k_tokens, heads, head_dim], rows (tokens) apart by
 * the given strides in elements; a sample's rows are consecutive.  Gradients have the layout of what
 * they are gradients of. */
struct AttentionShape {
    int64_t batch, heads, head_dim, q_tokens, k_tokens;
    int64_t q_stride, k_stride, v_stride, o_stride;
};

/* attention_forward   o, lse [B, heads, q_tokens]
 * attention_backward  dq, dk, dv from dO (stride of o); dk and dv may both be NULL: not wanted.
 *                     With a single key dq and dk are exactly 0. */
#define ATTENTION_OPS(OP)                                                                          \
    OP(attention_forward,                                                                          \
       (Act * o, float *lse, const Act *q, const Act *k, const Act *v,                             \
        struct AttentionShape shape),                                                              \
       (o, lse, q, k, v, shape))                                                                   \
    OP(attention_backward,                                                                         \
       (Act * dq, Act * dk, Act * dv, const Act *grad_o, const Act *o, const float *lse,           \
        const Act *q, const Act *k, const Act *v, struct AttentionShape shape),                    \
       (dq, dk, dv, grad_o, o, lse, q, k, v, shape))

#endif
