/* Backward in rounds.
 *
 * Its scratch is large: a float32 copy of dq, which some engines keep a second time, or, where dq
 * is to be summed in a fixed order, the gradient of all scores in bfloat16.  But heads have nothing
 * to do with each other, so that a round takes as many of them as the workspace holds.  Where it
 * does not even hold one, a round takes some of the queries of one head: dq comes out in parts
 * then, dk and dv as parts of a sum, which is kept in float32. */
#include "kernels/cuda/attention_backward.h"

#include <math.h>

#include "kernels/cuda/attention_graph.h"

enum {
    BF16_BYTES = 2,
    SCORE_BLOCK = 128,          /* engines round the scores up to whole blocks */
    ENGINE_BYTES = 1024 * 1024, /* what an engine asks for besides */
    PART_ALIGNMENT = 256
};

static int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

static int64_t divide_up(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}

/* What one round works on. */
struct Round {
    int64_t first_head, heads, first_query, queries;
};

/* Bytes per head of a round. */
struct HeadScratch {
    int64_t lse, delta;   /* lse: where it is copied, see dense_statistics */
    int64_t dq_float;     /* 0 if deterministic */
    int64_t key_gradient; /* of dk and of dv each, where they cannot go to the caller */
    int64_t key_sum;      /* likewise, where the gradients come in parts */
    int64_t by_engine;
};

static struct HeadScratch head_scratch(const struct AttentionOperands *t,
                                       const struct AttentionShape *s, int64_t queries,
                                       bool deterministic) {
    const int64_t n = s->batch * queries, key_elems = s->batch * s->k_tokens * s->head_dim;
    const bool in_parts = queries < s->q_tokens;
    struct HeadScratch need = {.lse = n * (int64_t)sizeof(float),
                               .delta = n * (int64_t)sizeof(float)};
    if (!t->dk || in_parts) need.key_gradient = key_elems * BF16_BYTES;
    if (t->dk && in_parts) need.key_sum = key_elems * (int64_t)sizeof(float);
    if (deterministic) {
        need.by_engine = s->batch * round_up(queries, SCORE_BLOCK) *
                         round_up(s->k_tokens, SCORE_BLOCK) * BF16_BYTES;
    } else {
        need.dq_float = n * s->head_dim * (int64_t)sizeof(float);
        need.by_engine = need.dq_float;
    }
    return need;
}

static int64_t total_bytes(struct HeadScratch need) {
    return need.lse + need.delta + need.dq_float + 2 * need.key_gradient + 2 * need.key_sum +
           need.by_engine;
}

/* Heads and queries of a round: the fewest rounds, of nearly equal size.  false: there is no room.
 */
static bool size_rounds(const struct Backend *be, const struct AttentionOperands *t,
                        const struct AttentionShape *s, struct Round *round) {
    const bool deterministic = cuda_state(be)->deterministic;
    const int64_t there = cuda_state(be)->workspace_bytes - ENGINE_BYTES;
    int64_t heads = there / total_bytes(head_scratch(t, s, s->q_tokens, deterministic));
    *round = (struct Round){.heads = 1, .queries = s->q_tokens};
    if (heads > 0) {
        round->heads = divide_up(s->heads, divide_up(s->heads, heads));
        return true;
    }
    int64_t queries = round_up(s->q_tokens, SCORE_BLOCK);
    do {
        queries -= SCORE_BLOCK;
        if (queries <= 0) return false;
    } while (total_bytes(head_scratch(t, s, queries, deterministic)) > there);
    round->queries = round_up(divide_up(s->q_tokens, divide_up(s->q_tokens, queries)), SCORE_BLOCK);
    return true;
}

/* A round's part of the workspace. */
struct Scratch {
    float *lse, *delta, *dq_float, *dk_sum, *dv_sum;
    Act *dk, *dv;
    struct CudnnScratch engine;
};

static int64_t take(int64_t *n_taken, int64_t n_bytes) {
    int64_t at = *n_taken;
    *n_taken += round_up(n_bytes, PART_ALIGNMENT);
    return at;
}

static struct Scratch lay_out(const struct Backend *be, struct HeadScratch need, int64_t heads) {
    int64_t n_taken = 0;
    int64_t lse = take(&n_taken, heads * need.lse);
    int64_t delta = take(&n_taken, heads * need.delta);
    int64_t dq_float = take(&n_taken, heads * need.dq_float);
    int64_t dk_sum = take(&n_taken, heads * need.key_sum);
    int64_t dv_sum = take(&n_taken, heads * need.key_sum);
    int64_t dk = take(&n_taken, heads * need.key_gradient);
    int64_t dv = take(&n_taken, heads * need.key_gradient);
    char *start = cuda_workspace(be, n_taken);
    return (struct Scratch){.lse = (float *)(void *)(start + lse),
                            .delta = (float *)(void *)(start + delta),
                            .dq_float = (float *)(void *)(start + dq_float),
                            .dk_sum = (float *)(void *)(start + dk_sum),
                            .dv_sum = (float *)(void *)(start + dv_sum),
                            .dk = (Act *)(void *)(start + dk),
                            .dv = (Act *)(void *)(start + dv),
                            .engine = cudnn_scratch_after(be, n_taken)};
}

/* The operands of a round: the same, from its first head and query on. */
static struct AttentionOperands operands_of(const struct Backend *be,
                                            const struct AttentionOperands *t,
                                            const struct AttentionShape *s,
                                            const struct Round *round) {
    const int64_t c = round->first_head * s->head_dim;
    const int64_t q = round->first_query * s->q_stride + c,
                  o = round->first_query * s->o_stride + c;
    return (struct AttentionOperands){
        .dq = act_at(be, t->dq, q),
        .dk = t->dk ? act_at(be, t->dk, c) : NULL,
        .dv = t->dv ? act_at(be, t->dv, c) : NULL,
        .grad_o = act_at(be, t->grad_o, o),
        .o = act_at(be, t->o, o),
        .q = act_at(be, t->q, q),
        .k = act_at(be, t->k, c),
        .v = act_at(be, t->v, c),
        .lse = t->lse + round->first_head * s->q_tokens + round->first_query,
    };
}

static struct AttentionGraphKey key_of(const struct AttentionShape *s, const struct Round *round,
                                       const struct HeadScratch *need) {
    const int64_t dense = round->heads * s->head_dim;
    struct AttentionGraphKey key = {.shape = *s,
                                    .all_queries = s->q_tokens,
                                    .dk_stride = need->key_gradient ? dense : s->k_stride,
                                    .dv_stride = need->key_gradient ? dense : s->v_stride,
                                    .deterministic = need->dq_float == 0};
    key.shape.heads = round->heads;
    key.shape.q_tokens = round->queries;
    return key;
}

static bool run_graph(const struct Backend *be, const struct AttentionOperands *t,
                      const struct AttentionGraphKey *key, const struct HeadScratch *need,
                      const struct Scratch *scratch) {
    const float scale = 1.0f / sqrtf((float)key->shape.head_dim), one = 1.0f;
    const struct CudnnGraph graph = {.what = "attention backward",
                                     .describe = attention_describe_backward,
                                     .key = key,
                                     .key_bytes = sizeof *key};
    const struct CudnnBinding bindings[] = {
        {ATTENTION_Q, t->q},
        {ATTENTION_K, t->k},
        {ATTENTION_V, t->v},
        {ATTENTION_O, t->o},
        {ATTENTION_GRAD_O, t->grad_o},
        {ATTENTION_LSE, t->lse},
        {ATTENTION_SCALE, &scale},
        {ATTENTION_ONE, &one},
        {ATTENTION_DQ, t->dq},
        {ATTENTION_DK, need->key_gradient ? scratch->dk : t->dk},
        {ATTENTION_DV, need->key_gradient ? scratch->dv : t->dv},
        {ATTENTION_DELTA, scratch->delta},
        {ATTENTION_DQ_FLOAT, scratch->dq_float}, /* last: the deterministic graph has none */
    };
    int n_bindings = (int)(sizeof bindings / sizeof *bindings) - (key->deterministic ? 1 : 0);
    return cudnn_graph_run(be, &graph, bindings, n_bindings, scratch->engine);
}

static void add_parts(const struct Backend *be, const struct AttentionOperands *t,
                      const struct AttentionShape *s, const struct Round *round,
                      const struct Scratch *scratch) {
    struct GradientPart part = {.out = t->dk,
                                .sum = scratch->dk_sum,
                                .part = scratch->dk,
                                .n_rows = s->batch * s->k_tokens,
                                .row_elems = round->heads * s->head_dim,
                                .out_stride = s->k_stride,
                                .first = round->first_query == 0,
                                .last = round->first_query + round->queries == s->q_tokens};
    attention_add_part(be, &part);
    part.out = t->dv;
    part.sum = scratch->dv_sum;
    part.part = scratch->dv;
    part.out_stride = s->v_stride;
    attention_add_part(be, &part);
}

/* A round's part of `lse`, as the graph wants it; `lse` begins with the round's first.  A round has
 * all queries of its heads or some of one head: in either case those of a sample lie together. */
static const float *dense_statistics(const struct Backend *be, const float *lse,
                                     const struct AttentionShape *s, const struct Round *round,
                                     float *copy) {
    const int64_t n_bytes = round->heads * round->queries * (int64_t)sizeof(float);
    const int64_t sample_bytes = s->heads * s->q_tokens * (int64_t)sizeof(float);
    if (n_bytes == sample_bytes) return lse;
    cuda_copy_rows(be, copy, n_bytes, lse, sample_bytes, s->batch, n_bytes);
    return copy;
}

static bool run_round(const struct Backend *be, const struct AttentionOperands *all,
                      const struct AttentionShape *s, const struct Round *round,
                      const struct HeadScratch *need) {
    struct AttentionOperands t = operands_of(be, all, s, round);
    const struct AttentionGraphKey key = key_of(s, round, need);
    const struct Scratch scratch = lay_out(be, *need, round->heads);
    t.lse = dense_statistics(be, t.lse, s, round, scratch.lse);
    if (!run_graph(be, &t, &key, need, &scratch)) return false;
    if (need->key_sum) add_parts(be, &t, s, round, &scratch);
    return true;
}

bool attention_backward_by_cudnn(const struct Backend *be, const struct AttentionOperands *t,
                                 const struct AttentionShape *s) {
    struct Round size;
    if (!size_rounds(be, t, s, &size)) return false;
    /* of the largest round: parts lie at the same place in all */
    const struct HeadScratch need = head_scratch(t, s, size.queries, cuda_state(be)->deterministic);
    for (int64_t h = 0; h < s->heads; h += size.heads)
        for (int64_t q = 0; q < s->q_tokens; q += size.queries) {
            const struct Round round = {
                .first_head = h,
                .heads = h + size.heads < s->heads ? size.heads : s->heads - h,
                .first_query = q,
                .queries = q + size.queries < s->q_tokens ? size.queries : s->q_tokens - q};
            if (!run_round(be, t, s, &round, &need)) return false;
        }
    return true;
}
