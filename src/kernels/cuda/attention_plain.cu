/* Flash attention in tiles of 32 by 32, without tensor cores.
 *
 * A block of 256 threads owns 32 rows of its result (queries, or keys in the kernel of dk and dv)
 * of one head, and walks along the tiles of the other side.  Everything passes through shared tiles
 * [32, 32]: head_dim is cut into chunks of 32, scores [queries, keys] are one tile.  A thread holds
 * 2 by 2 elements of each tile it accumulates: rows row(0), row(1), columns col(0), col(1).
 *
 * Forward keeps a running maximum and sum per query and rescales what it has (online softmax).
 * Backward makes P again from lse; dq comes from a loop over keys, dk and dv from a loop over
 * queries, so that nobody adds to what another block writes.  With P = exp(scale q k^T - lse):
 *     dv = P^T dO,  dS = P (dO v^T - delta) scale,  dq = dS k,  dk = dS^T q,  delta = rowsum(dO o).
 *
 * Reads of the rows that a block owns are repeated for every tile of the other side (they come from
 * the caches); results are written once. */
#include <cfloat>
#include <cmath>
#include <type_traits>

#include "kernel.cuh"
#include "kernels/cuda/attention_plain.h"

namespace {

enum {
    TILE = 32,        /* rows and columns of a tile */
    SIDE = 16,        /* threads along each side of it */
    PER_THREAD = 2,   /* TILE / SIDE */
    PITCH = TILE + 1, /* columns walk over all banks */
    THREADS = SIDE * SIDE,
    MAX_HEAD_DIM = 512,
    USUAL_HEAD_DIM = 128
};

using Tile = float (*)[PITCH];

/* A thread's elements of one tile. */
struct Fragment {
    float at[PER_THREAD][PER_THREAD];
};

__device__ __forceinline__ int row(int r) {
    return threadIdx.x / SIDE + SIDE * r;
}
__device__ __forceinline__ int col(int c) {
    return threadIdx.x % SIDE + SIDE * c;
}

/* Calls f(r, c) for each element of a thread's fragment. */
template <typename F> __device__ __forceinline__ void for_elements(F f) {
#pragma unroll
    for (int r = 0; r < PER_THREAD; r++)
#pragma unroll
        for (int c = 0; c < PER_THREAD; c++) f(r, c);
}

/* Rows of one head: row i begins at first + i * stride; n rows, from which on all is 0. */
template <typename T> struct Rows {
    const T *first;
    int64_t n, stride;
};

/* tile[i][j] = rows[from + i][chunk * TILE + j], 0 outside. */
template <typename T>
__device__ void load(Tile tile, const Rows<T> &rows, int64_t from, int chunk, int head_dim) {
    for (int e = threadIdx.x; e < TILE * TILE; e += THREADS) {
        int i = e / TILE, j = e % TILE, d = chunk * TILE + j;
        bool inside = from + i < rows.n && d < head_dim;
        tile[i][j] = inside ? to_f32(rows.first[(from + i) * rows.stride + d]) : 0.0f;
    }
}

/* Which operand of a product is taken transposed. */
enum Transposed { NEITHER, LEFT, RIGHT };

/* sum += left right, all of them tiles. */
template <Transposed TRANSPOSED>
__device__ __forceinline__ void multiply(Fragment &sum, Tile left, Tile right) {
#pragma unroll 4
    for (int x = 0; x < TILE; x++) {
        float a[PER_THREAD], b[PER_THREAD];
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            a[i] = TRANSPOSED == LEFT ? left[x][row(i)] : left[row(i)][x];
            b[i] = TRANSPOSED == RIGHT ? right[col(i)][x] : right[x][col(i)];
        }
        for_elements([&](int r, int c) { sum.at[r][c] += a[r] * b[c]; });
    }
}

/* The tile of x y^T whose first row and column are given: scores, or dO v^T. */
template <typename T>
__device__ Fragment products(Tile left, Tile right, const Rows<T> &x, int64_t first_row,
                             const Rows<T> &y, int64_t first_col, int head_dim) {
    Fragment sum = {};
    for (int chunk = 0; chunk * TILE < head_dim; chunk++) {
        __syncthreads(); /* the tiles have been read */
        load(left, x, first_row, chunk, head_dim);
        load(right, y, first_col, chunk, head_dim);
        __syncthreads();
        multiply<RIGHT>(sum, left, right);
    }
    return sum;
}

/* sums[chunk] += weights x[from...], or weights^T x[...], for all chunks of head_dim. */
template <Transposed TRANSPOSED, int N_CHUNKS, typename T>
__device__ __forceinline__ void accumulate(Fragment (&sums)[N_CHUNKS], Tile weights, Tile values,
                                           const Rows<T> &x, int64_t from, int head_dim) {
#pragma unroll
    for (int chunk = 0; chunk < N_CHUNKS; chunk++) {
        if (chunk * TILE >= head_dim) break;
        __syncthreads(); /* the weights have been written, the values read */
        load(values, x, from, chunk, head_dim);
        __syncthreads();
        multiply<TRANSPOSED>(sums[chunk], weights, values);
    }
}

/* Writes rows [from, from + TILE) of one head, times a factor per row. */
template <int N_CHUNKS, typename T>
__device__ __forceinline__ void store(T *out, int64_t n, int64_t stride, int64_t from,
                                      const Fragment (&sums)[N_CHUNKS], const float *factor,
                                      int head_dim) {
#pragma unroll
    for (int chunk = 0; chunk < N_CHUNKS; chunk++)
        for_elements([&](int r, int c) {
            int64_t i = from + row(r);
            int d = chunk * TILE + col(c);
            if (i < n && d < head_dim)
                out[i * stride + d] = from_f32<T>(sums[chunk].at[r][c] * factor[r]);
        });
}

/* Over the threads that share a row: half a warp, whose other half does the same. */
template <typename F> __device__ __forceinline__ float over_row(float x, F combine) {
    for (int offset = SIDE / 2; offset > 0; offset /= 2)
        x = combine(x, __shfl_xor_sync(~0u, x, offset));
    return x;
}

/* Where a head's data lies. */
template <typename T>
__device__ Rows<T> head_rows(const T *base, int64_t n_tokens, int64_t stride, int head_dim) {
    return {base + blockIdx.z * n_tokens * stride + (int64_t)blockIdx.y * head_dim, n_tokens,
            stride};
}
__device__ int64_t head_offset(int64_t n_tokens, int64_t stride, int64_t head_dim) {
    return blockIdx.z * n_tokens * stride + blockIdx.y * head_dim;
}

/* Running statistics of a thread's queries. */
struct Running {
    float max[PER_THREAD], sum[PER_THREAD];
};

/* Scores become exp(score - maximum), 0 beyond the last key; keep[r]: by how much what was summed
 * before shrinks. */
__device__ void softmax_tile(Fragment &p, Running &running, float (&keep)[PER_THREAD],
                             int64_t n_keys) {
#pragma unroll
    for (int r = 0; r < PER_THREAD; r++) {
        float highest = running.max[r], sum = 0.0f;
        for (int c = 0; c < PER_THREAD; c++)
            if (col(c) < n_keys) highest = fmaxf(highest, p.at[r][c]);
        highest = over_row(highest, [](float a, float b) { return fmaxf(a, b); });
        for (int c = 0; c < PER_THREAD; c++) {
            p.at[r][c] = col(c) < n_keys ? expf(p.at[r][c] - highest) : 0.0f;
            sum += p.at[r][c];
        }
        keep[r] = expf(running.max[r] - highest);
        running.max[r] = highest;
        running.sum[r] =
            running.sum[r] * keep[r] + over_row(sum, [](float a, float b) { return a + b; });
    }
}

template <typename T, int N_CHUNKS>
__global__ void __launch_bounds__(THREADS)
    attention_forward_kernel(T *o, float *lse, const T *q, const T *k, const T *v,
                             struct AttentionShape s, float scale) {
    SHARED_ARRAY(float, left_memory, TILE *PITCH);
    SHARED_ARRAY(float, right_memory, TILE *PITCH);
    SHARED_ARRAY(float, weights_memory, TILE *PITCH);
    Tile left = reinterpret_cast<Tile>(left_memory);
    Tile right = reinterpret_cast<Tile>(right_memory);
    Tile weights = reinterpret_cast<Tile>(weights_memory);
    int head_dim = (int)s.head_dim;
    int64_t first_query = (int64_t)blockIdx.x * TILE;
    Rows<T> queries = head_rows(q, s.q_tokens, s.q_stride, head_dim);
    Rows<T> keys = head_rows(k, s.k_tokens, s.k_stride, head_dim);
    Rows<T> values = head_rows(v, s.k_tokens, s.v_stride, head_dim);

    Fragment sums[N_CHUNKS] = {};
    Running running = {{-FLT_MAX, -FLT_MAX}, {0.0f, 0.0f}};
    for (int64_t first_key = 0; first_key < s.k_tokens; first_key += TILE) {
        float keep[PER_THREAD];
        Fragment p = products(left, right, queries, first_query, keys, first_key, head_dim);
        for_elements([&](int r, int c) { p.at[r][c] *= scale; });
        softmax_tile(p, running, keep, s.k_tokens - first_key);
        for_elements([&](int r, int c) { weights[row(r)][col(c)] = p.at[r][c]; });
#pragma unroll
        for (int chunk = 0; chunk < N_CHUNKS; chunk++)
            for_elements([&](int r, int c) { sums[chunk].at[r][c] *= keep[r]; });
        accumulate<NEITHER>(sums, weights, right, values, first_key, head_dim);
    }

    float factor[PER_THREAD];
    for (int r = 0; r < PER_THREAD; r++) {
        int64_t query = first_query + row(r);
        factor[r] = 1.0f / running.sum[r];
        if (query < s.q_tokens && col(0) == 0)
            lse[((int64_t)blockIdx.z * s.heads + blockIdx.y) * s.q_tokens + query] =
                running.max[r] + logf(running.sum[r]);
    }
    store(o + head_offset(s.q_tokens, s.o_stride, s.head_dim), s.q_tokens, s.o_stride, first_query,
          sums, factor, head_dim);
}

/* delta [batch, heads, q_tokens] = rowsum(dO o); a warp per row. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    attention_delta_kernel(float *delta, const T *grad_o, const T *o, struct AttentionShape s) {
    int64_t query = (int64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    int64_t at = head_offset(s.q_tokens, s.o_stride, s.head_dim) + query * s.o_stride;
    float sum = 0.0f;
    if (query < s.q_tokens)
        for (int64_t d = threadIdx.x % WARP; d < s.head_dim; d += WARP)
            sum += to_f32(grad_o[at + d]) * to_f32(o[at + d]);
    sum = warp_sum(sum);
    if (query < s.q_tokens && threadIdx.x % WARP == 0)
        delta[((int64_t)blockIdx.z * s.heads + blockIdx.y) * s.q_tokens + query] = sum;
}

/* What both kernels of backward read. */
template <typename T> struct BackwardInputs {
    const T *grad_o, *q, *k, *v;
    const float *lse, *delta;
    float scale;
    float gradient_scale; /* 0 where there is but one key: its probability is 1 whatever it is */
};

/* The tiles P and dS of queries from first_query, keys from first_key on. */
struct ScoreTiles {
    Fragment p, ds;
};

template <typename T>
__device__ ScoreTiles score_tiles(Tile left, Tile right, const BackwardInputs<T> &in,
                                  int64_t first_query, int64_t first_key,
                                  const struct AttentionShape &s) {
    int head_dim = (int)s.head_dim;
    Rows<T> queries = head_rows(in.q, s.q_tokens, s.q_stride, head_dim);
    Rows<T> keys = head_rows(in.k, s.k_tokens, s.k_stride, head_dim);
    Rows<T> values = head_rows(in.v, s.k_tokens, s.v_stride, head_dim);
    Rows<T> grads = head_rows(in.grad_o, s.q_tokens, s.o_stride, head_dim);
    int64_t statistics = ((int64_t)blockIdx.z * s.heads + blockIdx.y) * s.q_tokens;
    ScoreTiles t;
    t.p = products(left, right, queries, first_query, keys, first_key, head_dim);
    t.ds = products(left, right, grads, first_query, values, first_key, head_dim);
    for_elements([&](int r, int c) {
        int64_t query = first_query + row(r);
        bool inside = query < s.q_tokens && first_key + col(c) < s.k_tokens;
        float p = 0.0f, ds = 0.0f;
        if (inside) {
            p = expf(t.p.at[r][c] * in.scale - in.lse[statistics + query]);
            ds = p * (t.ds.at[r][c] - in.delta[statistics + query]) * in.gradient_scale;
        }
        t.p.at[r][c] = p;
        t.ds.at[r][c] = ds;
    });
    return t;
}

template <typename T, int N_CHUNKS>
__global__ void __launch_bounds__(THREADS)
    attention_dq_kernel(T *dq, BackwardInputs<T> in, struct AttentionShape s) {
    SHARED_ARRAY(float, left_memory, TILE *PITCH);
    SHARED_ARRAY(float, right_memory, TILE *PITCH);
    SHARED_ARRAY(float, weights_memory, TILE *PITCH);
    Tile left = reinterpret_cast<Tile>(left_memory);
    Tile right = reinterpret_cast<Tile>(right_memory);
    Tile weights = reinterpret_cast<Tile>(weights_memory);
    int head_dim = (int)s.head_dim;
    int64_t first_query = (int64_t)blockIdx.x * TILE;
    Rows<T> keys = head_rows(in.k, s.k_tokens, s.k_stride, head_dim);
    Fragment sums[N_CHUNKS] = {};
    for (int64_t first_key = 0; first_key < s.k_tokens; first_key += TILE) {
        ScoreTiles t = score_tiles(left, right, in, first_query, first_key, s);
        for_elements([&](int r, int c) { weights[row(r)][col(c)] = t.ds.at[r][c]; });
        accumulate<NEITHER>(sums, weights, right, keys, first_key, head_dim);
    }
    const float factor[PER_THREAD] = {1.0f, 1.0f};
    store(dq + head_offset(s.q_tokens, s.q_stride, s.head_dim), s.q_tokens, s.q_stride, first_query,
          sums, factor, head_dim);
}

template <typename T, int N_CHUNKS>
__global__ void __launch_bounds__(THREADS)
    attention_dkv_kernel(T *dk, T *dv, BackwardInputs<T> in, struct AttentionShape s) {
    SHARED_ARRAY(float, left_memory, TILE *PITCH);
    SHARED_ARRAY(float, right_memory, TILE *PITCH);
    SHARED_ARRAY(float, p_memory, TILE *PITCH);
    SHARED_ARRAY(float, ds_memory, TILE *PITCH);
    Tile left = reinterpret_cast<Tile>(left_memory);
    Tile right = reinterpret_cast<Tile>(right_memory);
    Tile p = reinterpret_cast<Tile>(p_memory), ds = reinterpret_cast<Tile>(ds_memory);
    int head_dim = (int)s.head_dim;
    int64_t first_key = (int64_t)blockIdx.x * TILE;
    Rows<T> queries = head_rows(in.q, s.q_tokens, s.q_stride, head_dim);
    Rows<T> grads = head_rows(in.grad_o, s.q_tokens, s.o_stride, head_dim);
    Fragment dk_sums[N_CHUNKS] = {}, dv_sums[N_CHUNKS] = {};
    for (int64_t first_query = 0; first_query < s.q_tokens; first_query += TILE) {
        ScoreTiles t = score_tiles(left, right, in, first_query, first_key, s);
        for_elements([&](int r, int c) {
            p[row(r)][col(c)] = t.p.at[r][c];
            ds[row(r)][col(c)] = t.ds.at[r][c];
        });
        accumulate<LEFT>(dv_sums, p, right, grads, first_query, head_dim);
        accumulate<LEFT>(dk_sums, ds, right, queries, first_query, head_dim);
    }
    const float factor[PER_THREAD] = {1.0f, 1.0f};
    store(dk + head_offset(s.k_tokens, s.k_stride, s.head_dim), s.k_tokens, s.k_stride, first_key,
          dk_sums, factor, head_dim);
    store(dv + head_offset(s.k_tokens, s.v_stride, s.head_dim), s.k_tokens, s.v_stride, first_key,
          dv_sums, factor, head_dim);
}

dim3 grid_over(int64_t n_tokens, int64_t tokens_per_block, const struct AttentionShape &s) {
    return dim3((unsigned int)((n_tokens + tokens_per_block - 1) / tokens_per_block),
                (unsigned int)s.heads, (unsigned int)s.batch);
}

/* Calls f(type, chunks): a null pointer to an Act's type, and as a type the number of chunks that a
 * thread holds sums of.  Few of them are many registers saved. */
template <typename F> void with_kernel(const struct Backend *be, int64_t head_dim, F f) {
    TMD_CHECK(head_dim <= MAX_HEAD_DIM, "head_dim %lld", (long long)head_dim);
    with_act_type(be, [&](auto *type) {
        if (head_dim <= USUAL_HEAD_DIM)
            f(type, std::integral_constant<int, USUAL_HEAD_DIM / TILE>());
        else
            f(type, std::integral_constant<int, MAX_HEAD_DIM / TILE>());
    });
}

} // namespace

void attention_plain_forward(const struct Backend *be, Act *o, float *lse, const Act *q,
                             const Act *k, const Act *v, struct AttentionShape s) {
    float scale = 1.0f / sqrtf((float)s.head_dim);
    with_kernel(be, s.head_dim, [&](auto *type, auto chunks) {
        using T = ACT_TYPE(type);
        CUDA_LAUNCH(be, (attention_forward_kernel<T, decltype(chunks)::value>),
                    grid_over(s.q_tokens, TILE, s), THREADS, 0, (T *)o, lse, (const T *)q,
                    (const T *)k, (const T *)v, s, scale);
    });
}

void attention_plain_backward(const struct Backend *be, Act *dq, Act *dk, Act *dv,
                              const Act *grad_o, const Act *o, const float *lse, const Act *q,
                              const Act *k, const Act *v, struct AttentionShape s) {
    float scale = 1.0f / sqrtf((float)s.head_dim);
    float *delta = (float *)cuda_workspace(be, s.batch * s.heads * s.q_tokens * 4);
    with_kernel(be, s.head_dim, [&](auto *type, auto chunks) {
        using T = ACT_TYPE(type);
        constexpr int N_CHUNKS = decltype(chunks)::value;
        BackwardInputs<T> in = {(const T *)grad_o,
                                (const T *)q,
                                (const T *)k,
                                (const T *)v,
                                lse,
                                delta,
                                scale,
                                s.k_tokens > 1 ? scale : 0.0f};
        CUDA_LAUNCH(be, (attention_delta_kernel<T>), grid_over(s.q_tokens, THREADS / WARP, s),
                    THREADS, 0, delta, (const T *)grad_o, (const T *)o, s);
        CUDA_LAUNCH(be, (attention_dq_kernel<T, N_CHUNKS>), grid_over(s.q_tokens, TILE, s), THREADS,
                    0, (T *)dq, in, s);
        if (dk)
            CUDA_LAUNCH(be, (attention_dkv_kernel<T, N_CHUNKS>), grid_over(s.k_tokens, TILE, s),
                        THREADS, 0, (T *)dk, (T *)dv, in, s);
    });
}
