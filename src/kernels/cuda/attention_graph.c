/* The graphs.  Tensors are [batch, heads, tokens, head_dim] in cuDNN's order, with the strides of
 * [batch, tokens, heads, head_dim].
 *
 * Forward is cuDNN's operation for it (since 9.13).  Its counterpart for backward exists by name,
 * but up to 9.19 makes no valid graph, so backward is the pattern that cuDNN's documentation gives
 * for flash attention and that its engines know as a whole; nothing of size [tokens, tokens] is
 * ever stored:
 *
 *     delta = rowsum(dO * o)                      P  = exp(scale q k^T - lse)       dv = P^T dO
 *     dS    = P * (dO v^T - delta) * scale        dk = dS^T q                       dq = dS k
 *
 * dq is summed over blocks of keys that run at the same time: in float32, by atomic additions, in a
 * tensor of its own.  Left out, it asks for the engine that sums in a fixed order. */
#include "kernels/cuda/attention_graph.h"

/* 9.15.1: backward no longer reads beyond keys whose number is no multiple of 128. */
enum { OLDEST_VERSION = 91501 };

/* A tensor in cuDNN's order from the layout of the operations; samples are sample_tokens rows
 * apart. */
static struct CudnnTensor tokens(int64_t uid, const struct AttentionShape *s, int64_t n_tokens,
                                 int64_t stride, int64_t sample_tokens) {
    return (struct CudnnTensor){.uid = uid,
                                .type = CUDNN_DATA_BFLOAT16,
                                .rank = 4,
                                .dims = {s->batch, s->heads, n_tokens, s->head_dim},
                                .strides = {sample_tokens * stride, s->head_dim, stride, 1}};
}

static struct CudnnTensor queries(int64_t uid, const struct AttentionGraphKey *key,
                                  int64_t stride) {
    return tokens(uid, &key->shape, key->shape.q_tokens, stride, key->all_queries);
}

static struct CudnnTensor keys(int64_t uid, const struct AttentionGraphKey *key, int64_t stride) {
    return tokens(uid, &key->shape, key->shape.k_tokens, stride, key->shape.k_tokens);
}

/* One number per query, dense: up to 9.25 backward takes them to be so, whatever the strides. */
static struct CudnnTensor per_query(int64_t uid, const struct AttentionShape *s) {
    return (struct CudnnTensor){.uid = uid,
                                .type = CUDNN_DATA_FLOAT,
                                .rank = 4,
                                .dims = {s->batch, s->heads, s->q_tokens, 1},
                                .strides = {s->heads * s->q_tokens, s->q_tokens, 1, 1}};
}

static struct CudnnTensor host_scalar(int64_t uid) {
    return (struct CudnnTensor){.uid = uid,
                                .type = CUDNN_DATA_FLOAT,
                                .rank = 4,
                                .dims = {1, 1, 1, 1},
                                .strides = {1, 1, 1, 1},
                                .on_host = true};
}

void attention_describe_forward(struct CudnnBuilder *b, const void *key) {
    const struct AttentionGraphKey *given = key;
    const struct AttentionShape *s = &given->shape;
    const struct CudnnTensor q = queries(ATTENTION_Q, given, s->q_stride),
                             k = keys(ATTENTION_K, given, s->k_stride),
                             v = keys(ATTENTION_V, given, s->v_stride),
                             o = queries(ATTENTION_O, given, s->o_stride),
                             lse = per_query(ATTENTION_LSE, s),
                             scale = host_scalar(ATTENTION_SCALE);
    cudnn_require_version(b, OLDEST_VERSION);
    cudnnBackendDescriptor_t op = cudnn_descriptor(b, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    cudnn_set_link(b, op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, cudnn_tensor(b, &q));
    cudnn_set_link(b, op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, cudnn_tensor(b, &k));
    cudnn_set_link(b, op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, cudnn_tensor(b, &v));
    cudnn_set_link(b, op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, cudnn_tensor(b, &o));
    cudnn_set_link(b, op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, cudnn_tensor(b, &lse));
    cudnn_set_link(b, op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, cudnn_tensor(b, &scale));
    cudnn_add_operation(b, op);
}

/* ---- backward: a few words of cuDNN's language of graphs */

struct Pattern {
    struct CudnnBuilder *b;
    const struct AttentionGraphKey *key;
    const struct AttentionShape *s; /* the key's */
    int64_t next_uid;               /* of the next virtual tensor */
};

/* Between two operations: dense, rank 4; strides of the last two as given. */
static cudnnBackendDescriptor_t between(struct Pattern *p, cudnnDataType_t type, int64_t rows,
                                        int64_t cols, int64_t row_stride, int64_t col_stride) {
    const struct AttentionShape *s = p->s;
    struct CudnnTensor t = {
        .uid = p->next_uid++,
        .type = type,
        .rank = 4,
        .dims = {s->batch, s->heads, rows, cols},
        .strides = {s->heads * rows * cols, rows * cols, row_stride, col_stride},
        .is_virtual = true};
    return cudnn_tensor(p->b, &t);
}

/* Float [queries, keys], as the scores. */
static cudnnBackendDescriptor_t scores(struct Pattern *p) {
    return between(p, CUDNN_DATA_FLOAT, p->s->q_tokens, p->s->k_tokens, p->s->k_tokens, 1);
}

/* y = mode(x, b); b may be NULL. */
static cudnnBackendDescriptor_t pointwise(struct Pattern *p, cudnnPointwiseMode_t mode,
                                          cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t b,
                                          cudnnBackendDescriptor_t y) {
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = cudnn_descriptor(p->b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnn_set(p->b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    cudnn_set(p->b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    cudnn_finalize(p->b, how);
    cudnnBackendDescriptor_t op =
        cudnn_descriptor(p->b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b) cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    cudnn_add_operation(p->b, op);
    return y;
}

/* c = a b */
static cudnnBackendDescriptor_t matmul(struct Pattern *p, cudnnBackendDescriptor_t a,
                                       cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t c) {
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = cudnn_descriptor(p->b, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    cudnn_set(p->b, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    cudnn_finalize(p->b, how);
    cudnnBackendDescriptor_t op = cudnn_descriptor(p->b, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    cudnn_add_operation(p->b, op);
    return c;
}

/* y = the sum of x over the dimensions in which y has length 1. */
static cudnnBackendDescriptor_t sum(struct Pattern *p, cudnnBackendDescriptor_t x,
                                    cudnnBackendDescriptor_t y) {
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    const cudnnReduceTensorOp_t add = CUDNN_REDUCE_TENSOR_ADD;
    cudnnBackendDescriptor_t how = cudnn_descriptor(p->b, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    cudnn_set(p->b, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1,
              &add);
    cudnn_set(p->b, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    cudnn_finalize(p->b, how);
    cudnnBackendDescriptor_t op =
        cudnn_descriptor(p->b, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    cudnn_add_operation(p->b, op);
    return y;
}

/* y = x seen with other dimensions and strides: a transpose. */
static cudnnBackendDescriptor_t view(struct Pattern *p, cudnnBackendDescriptor_t x,
                                     cudnnBackendDescriptor_t y) {
    cudnnBackendDescriptor_t op =
        cudnn_descriptor(p->b, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    cudnn_set_link(p->b, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    cudnn_add_operation(p->b, op);
    return y;
}

/* bfloat16 [keys, queries] from float [queries, keys]. */
static cudnnBackendDescriptor_t transposed(struct Pattern *p, cudnnBackendDescriptor_t x) {
    const struct AttentionShape *s = p->s;
    return view(p, x, between(p, CUDNN_DATA_BFLOAT16, s->k_tokens, s->q_tokens, 1, s->k_tokens));
}

static struct CudnnTensor with_last_two_swapped(struct CudnnTensor t) {
    struct CudnnTensor swapped = t;
    swapped.dims[2] = t.dims[3], swapped.dims[3] = t.dims[2];
    swapped.strides[2] = t.strides[3], swapped.strides[3] = t.strides[2];
    return swapped;
}

static cudnnBackendDescriptor_t of_queries(struct Pattern *p, int64_t uid, int64_t stride) {
    const struct CudnnTensor t = queries(uid, p->key, stride);
    return cudnn_tensor(p->b, &t);
}

static cudnnBackendDescriptor_t of_keys(struct Pattern *p, int64_t uid, int64_t stride) {
    const struct CudnnTensor t = keys(uid, p->key, stride);
    return cudnn_tensor(p->b, &t);
}

static cudnnBackendDescriptor_t of_keys_transposed(struct Pattern *p, int64_t uid, int64_t stride) {
    const struct CudnnTensor t = with_last_two_swapped(keys(uid, p->key, stride));
    return cudnn_tensor(p->b, &t);
}

/* rowsum(dO o), which is kept.  The factor of 1 stands where dropout would have its own: without it
 * the engines miss the pattern and ask for room for all scores. */
static cudnnBackendDescriptor_t delta_of(struct Pattern *p, cudnnBackendDescriptor_t grad_o) {
    const struct AttentionShape *s = p->s;
    const struct CudnnTensor kept = per_query(ATTENTION_DELTA, s), one = host_scalar(ATTENTION_ONE);
    cudnnBackendDescriptor_t o = of_queries(p, ATTENTION_O, s->o_stride);
    cudnnBackendDescriptor_t products =
        between(p, CUDNN_DATA_FLOAT, s->q_tokens, s->head_dim, s->head_dim, 1);
    cudnnBackendDescriptor_t summed = sum(p, pointwise(p, CUDNN_POINTWISE_MUL, grad_o, o, products),
                                          between(p, CUDNN_DATA_FLOAT, s->q_tokens, 1, 1, 1));
    return pointwise(p, CUDNN_POINTWISE_MUL, summed, cudnn_tensor(p->b, &one),
                     cudnn_tensor(p->b, &kept));
}

/* dq = dS k */
static void query_gradient(struct Pattern *p, cudnnBackendDescriptor_t score_gradient,
                           cudnnBackendDescriptor_t k_transposed) {
    const struct AttentionShape *s = p->s;
    struct CudnnTensor untransposed = keys(p->next_uid++, p->key, s->k_stride);
    untransposed.is_virtual = true;
    cudnnBackendDescriptor_t k = view(p, k_transposed, cudnn_tensor(p->b, &untransposed));
    cudnnBackendDescriptor_t dq = of_queries(p, ATTENTION_DQ, s->q_stride);
    if (p->key->deterministic) {
        matmul(p, score_gradient, k, dq);
        return;
    }
    int64_t head = s->q_tokens * s->head_dim;
    struct CudnnTensor summed = {.uid = ATTENTION_DQ_FLOAT,
                                 .type = CUDNN_DATA_FLOAT,
                                 .rank = 4,
                                 .dims = {s->batch, s->heads, s->q_tokens, s->head_dim},
                                 .strides = {s->heads * head, head, s->head_dim, 1}};
    cudnnBackendDescriptor_t dq_float = matmul(p, score_gradient, k, cudnn_tensor(p->b, &summed));
    pointwise(p, CUDNN_POINTWISE_IDENTITY, dq_float, NULL, dq);
}

void attention_describe_backward(struct CudnnBuilder *b, const void *key) {
    const struct AttentionGraphKey *given = key;
    const struct AttentionShape *s = &given->shape;
    struct Pattern p = {b, given, s, ATTENTION_VIRTUAL};
    const struct CudnnTensor lse_tensor = per_query(ATTENTION_LSE, s),
                             scale_tensor = host_scalar(ATTENTION_SCALE);
    cudnn_require_version(b, OLDEST_VERSION);
    cudnnBackendDescriptor_t q = of_queries(&p, ATTENTION_Q, s->q_stride),
                             kt = of_keys_transposed(&p, ATTENTION_K, s->k_stride),
                             vt = of_keys_transposed(&p, ATTENTION_V, s->v_stride),
                             grad_o = of_queries(&p, ATTENTION_GRAD_O, s->o_stride),
                             dk = of_keys(&p, ATTENTION_DK, given->dk_stride),
                             dv = of_keys(&p, ATTENTION_DV, given->dv_stride),
                             lse = cudnn_tensor(b, &lse_tensor),
                             scale = cudnn_tensor(b, &scale_tensor);
    cudnnBackendDescriptor_t delta = delta_of(&p, grad_o);

    cudnnBackendDescriptor_t logits = matmul(&p, q, kt, scores(&p));
    logits = pointwise(&p, CUDNN_POINTWISE_MUL, logits, scale, scores(&p));
    logits = pointwise(&p, CUDNN_POINTWISE_SUB, logits, lse, scores(&p));
    cudnnBackendDescriptor_t prob = pointwise(&p, CUDNN_POINTWISE_EXP, logits, NULL, scores(&p));
    matmul(&p, transposed(&p, prob), grad_o, dv);

    cudnnBackendDescriptor_t ds = matmul(&p, grad_o, vt, scores(&p));
    ds = pointwise(&p, CUDNN_POINTWISE_SUB, ds, delta, scores(&p));
    ds = pointwise(&p, CUDNN_POINTWISE_MUL, ds, prob, scores(&p));
    ds = pointwise(&p, CUDNN_POINTWISE_MUL, ds, scale, scores(&p));
    matmul(&p, transposed(&p, ds), q, dk);
    query_gradient(&p, ds, kt);
}
