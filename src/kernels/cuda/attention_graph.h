/* Attention as cuDNN's graphs: one operation forward, the pattern of flash attention's backward. */
#ifndef TMD_ATTENTION_GRAPH_H
#define TMD_ATTENTION_GRAPH_H

#include "kernels/cuda/cudnn_graph.h"

/* Some heads and queries of an attention, as the cache of plans tells one from another (no
 * padding). */
struct AttentionGraphKey {
    struct AttentionShape shape;  /* `heads`, `q_tokens`: those of this graph */
    int64_t all_queries;          /* of a sample of q and o */
    int64_t dk_stride, dv_stride; /* between tokens; backward only */
    int64_t deterministic;        /* backward only */
};

/* What an address in the run's bindings stands for. */
enum AttentionUid {
    ATTENTION_Q = 1,
    ATTENTION_K,
    ATTENTION_V,
    ATTENTION_O,
    ATTENTION_LSE,   /* float [batch, heads, q_tokens], dense, of the graph's heads and queries */
    ATTENTION_SCALE, /* on the host: a float, 1 / sqrt(head_dim) */
    /* of backward alone */
    ATTENTION_ONE, /* on the host: 1 */
    ATTENTION_GRAD_O,
    ATTENTION_DQ,
    ATTENTION_DK,
    ATTENTION_DV,
    ATTENTION_DELTA,    /* scratch: float [batch, heads, q_tokens], rowsum(dO o) */
    ATTENTION_DQ_FLOAT, /* scratch: float [batch, heads, q_tokens, head_dim], where dq is summed;
                           not where the sum must be deterministic */
    ATTENTION_VIRTUAL   /* the first of those without an address */
};

/* `key`: a struct AttentionGraphKey */
void attention_describe_forward(struct CudnnBuilder *b, const void *key);
void attention_describe_backward(struct CudnnBuilder *b, const void *key);

#endif
