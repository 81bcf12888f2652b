/* A macro COST_<operation> for each: what it multiplies, and what it moves. */
#include "kernels/op_cost.h"

#include <stdlib.h>

#include "error.h"

enum { F32 = sizeof(float), F64 = sizeof(double) };

/* Operations that only pass over elements. */
static struct OpCost moved(int64_t n_bytes) {
    return (struct OpCost){0.0, (double)n_bytes};
}

/* n_products of [m, k] x [k, n]; in double, for a day of training does not fit 64 bits. */
static struct OpCost multiplied(int64_t n_products, int64_t m, int64_t n, int64_t k,
                                int64_t n_bytes) {
    double terms = (double)n_products * (double)m * (double)n * (double)k;
    return (struct OpCost){2.0 * terms, (double)n_bytes};
}

/* x, y and w have `elem` bytes per element; `extra` bytes besides. */
static struct OpCost linear(struct LinearShape s, int64_t elem, int64_t extra) {
    int64_t n_elems = s.rows * (s.n_in + s.n_out) + s.n_in * s.n_out;
    return multiplied(1, s.rows, s.n_out, s.n_in, elem * n_elems + extra);
}

/* dw and db are read and written in float32. */
static struct OpCost linear_params(struct LinearShape s, int64_t elem, const float *db) {
    int64_t n_params = s.n_in * s.n_out + (db ? s.n_out : 0);
    return multiplied(1, s.rows, s.n_out, s.n_in,
                      elem * s.rows * (s.n_in + s.n_out) + 2 * F32 * n_params);
}

/* Products of [q_tokens, head_dim] x [head_dim, k_tokens] or of the same sizes in another order;
 * tensors with a row per query, tensors with a row per key, and lse. */
static struct OpCost attention(struct AttentionShape s, int64_t elem, int64_t n_products,
                               int64_t n_by_query, int64_t n_by_key) {
    int64_t heads = s.batch * s.heads;
    int64_t n_elems = heads * s.head_dim * (n_by_query * s.q_tokens + n_by_key * s.k_tokens);
    return multiplied(heads * n_products, s.q_tokens, s.k_tokens, s.head_dim,
                      elem * n_elems + F32 * heads * s.q_tokens);
}

/* Scores, dP = dO V^T and dQ = dS K; for dk and dv also dV = P^T dO and dK = dS^T Q. */
static struct OpCost attention_backward(struct AttentionShape s, int64_t elem, const Act *dk) {
    return dk ? attention(s, elem, 5, 4, 4) : attention(s, elem, 3, 4, 2);
}

static int64_t product3(const int64_t v[3]) {
    return v[0] * v[1] * v[2];
}

static struct OpCost conv(const struct ConvShape *s, int64_t elem, int64_t weight_bytes) {
    int64_t fan_in = s->in_channels * product3(s->kernel), positions = s->batch * product3(s->out);
    int64_t n_elems = s->batch * s->in_channels * product3(s->in) + positions * s->out_channels;
    return multiplied(1, positions, s->out_channels, fan_in,
                      elem * n_elems + weight_bytes * s->out_channels * fan_in);
}

static int64_t rows_of(int64_t batch, int64_t tokens, int64_t dim) {
    return batch * tokens * dim;
}
static int64_t video_of(struct PatchShape s) {
    return s.batch * s.channels * s.frames * s.height * s.width;
}
static int64_t planes_of(struct GroupNormShape s) {
    return s.batch * s.channels * s.positions;
}

/* ---- One line per operation: an expression over its own parameters.  A: bytes of an Act. */

#define A dtype_bytes(be->act_dtype)
#define TOKENS rows_of(shape.batch, shape.tokens, shape.dim)
#define ROW_STATS (F32 * shape.batch * shape.tokens)
#define LATENTS (F32 * batch * n_per_sample)

#define COST_upload moved(n_bytes)
#define COST_upload_start moved(n_bytes)
#define COST_download moved(n_bytes)
#define COST_download_start moved(n_bytes)
#define COST_copy moved(2 * n_bytes)
#define COST_copy_rows moved(2 * n_rows *row_bytes)
#define COST_zero moved(n_bytes)

#define COST_linear_forward linear(shape, A, A * shape.n_out)
#define COST_linear_gelu_forward linear(shape, A, A * (1 + shape.rows) * shape.n_out)
#define COST_linear_backward_input linear(shape, A, accumulate * A * shape.rows * shape.n_in)
#define COST_linear_gelu_backward_input linear(shape, A, A * shape.rows * shape.n_in)
#define COST_linear_backward_params linear_params(shape, A, db)
#define COST_linear_f32_forward linear(shape, F32, F32 * shape.n_out)
#define COST_linear_f32_backward_input linear(shape, F32, 0)
#define COST_linear_f32_backward_params linear_params(shape, F32, db)

#define COST_layer_norm_forward moved(2 * A * TOKENS + 2 * ROW_STATS)
#define COST_layer_norm_backward moved((accumulate ? 4 : 3) * A * TOKENS + 2 * ROW_STATS)
#define COST_gate_forward moved(3 * A * TOKENS)
#define COST_gate_norm_forward moved(4 * A * TOKENS + 2 * ROW_STATS)
#define COST_gate_backward moved(3 * A * TOKENS)
#define COST_qk_norm_forward moved(2 * A * TOKENS + ROW_STATS)
#define COST_qk_norm_backward moved(3 * A * TOKENS + ROW_STATS)

#define COST_attention_forward attention(shape, A, 2, 2, 2)
#define COST_attention_backward attention_backward(shape, A, dk)

#define COST_sinusoid moved(F32 *batch *dim)
#define COST_silu_forward moved(2 * F32 * n_elems)
#define COST_silu_backward moved((accumulate ? 4 : 3) * F32 * n_elems)
#define COST_add_f32 moved(3 * F32 * n_elems)
#define COST_rows_add moved(F32 *(2 * batch + 1) * n_elems)
#define COST_rows_add_backward moved(F32 *(batch * (din ? 3 : 1) + (drow ? 2 : 0)) * n_elems)
#define COST_act_from_f32 moved((A + F32) * n_elems)
#define COST_act_to_f32 moved((A + F32) * n_elems)
#define COST_act_add moved(3 * A * n_elems)
#define COST_mix_forward moved(3 * A * n_elems)
#define COST_mix_backward moved(5 * A * n_elems)
#define COST_columns_join moved(4 * A * rows * dim)
#define COST_columns_split moved(4 * A * rows * dim)

#define COST_normal_fill moved(LATENTS)
#define COST_combine moved((n_terms + 1) * LATENTS)
#define COST_patches_gather moved((A + F32) * video_of(shape))
#define COST_patches_scatter moved((A + F32) * video_of(shape))
#define COST_act_patches_gather moved(2 * A * video_of(shape))
#define COST_act_patches_scatter moved(2 * A * video_of(shape))

#define COST_squares_sum moved(LATENTS)
#define COST_adaptive_loss moved(3 * LATENTS)
#define COST_vsd_direction moved((norm == VSD_NORM_PAPER ? 4 : 5) * LATENTS)
#define COST_softplus_loss moved((dx ? 2 : 1) * F32 * batch * n_logits + F64 * batch)

#define COST_conv3d_forward conv(shape, A, A)
#define COST_conv3d_backward_input conv(shape, A, A)
#define COST_conv3d_backward_params conv(shape, A, 2 * F32)
#define COST_group_norm_leaky_forward moved(2 * A * planes_of(shape))
#define COST_group_norm_leaky_backward moved((dx ? 3 : 2) * A * planes_of(shape))
#define COST_mean_pool_forward moved(A *rows_of(batch, channels, positions))
#define COST_mean_pool_backward moved(A *rows_of(batch, channels, positions))
#define COST_leaky_relu_forward moved(2 * F32 * n_elems)
#define COST_leaky_relu_backward moved(3 * F32 * n_elems)

/* Bytes per weight of the copy in the activation type, which float32 does without. */
#define COMPUTE_COPY (be->act_dtype == DTYPE_F32 ? 0 : A)
#define COST_norm_squared moved(F32 *n_elems)
#define COST_adamw moved((7 * F32 + COMPUTE_COPY) * n_elems)
#define COST_ema_update moved(3 * F32 * n_elems)
#define COST_scale_f32 moved(2 * F32 * n_elems)
#define COST_weights_cast moved((COMPUTE_COPY ? F32 + A : 0) * n_elems)

/* No cost depends on all of its operation's parameters. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define OP_COST_FUNCTION(name, params, names)                                                      \
    struct OpCost op_cost_##name(const struct Backend *be, BACKEND_UNWRAP params) {                \
        return COST_##name;                                                                        \
    }
MEMORY_OPS(OP_COST_FUNCTION)
COMPUTE_OPS(OP_COST_FUNCTION)
#pragma GCC diagnostic pop

const char *op_name(enum Op op) {
#define OP_NAME(name, params, names) #name,
    static const char *const names[OP_COUNT] = {MEMORY_OPS(OP_NAME) COMPUTE_OPS(OP_NAME)};
    TMD_CHECK(op >= 0 && op < OP_COUNT, "operation %d", (int)op);
    return names[op];
}

struct OpTally op_tally_total(const struct OpTally *tallies) {
    struct OpTally total = {0};
    for (int op = 0; op < OP_COUNT; op++) {
        total.calls += tallies[op].calls;
        total.seconds += tallies[op].seconds;
        total.flops += tallies[op].flops;
        total.bytes += tallies[op].bytes;
    }
    return total;
}

static int slower_first(const void *a, const void *b) {
    double x = ((const struct OpRow *)a)->tally.seconds, y = ((const struct OpRow *)b)->tally.seconds;
    return (x < y) - (x > y);
}

void op_rows_sort(struct OpRow *rows, int n_rows) {
    qsort(rows, (size_t)n_rows, sizeof *rows, slower_first);
}
