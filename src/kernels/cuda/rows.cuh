/* Rows of channels, each held in the registers of one block.
 *
 * A thread has ROW_PER_THREAD channels of the row, in runs that lie a block's width apart, so that
 * neighbouring threads touch neighbouring addresses.  A kernel handles one row per block; or,
 * where something is summed over the rows, a block *walks* over every so-manieth row of a group and
 * keeps its threads' columns of the sum in registers.  What the walkers have summed goes to the
 * workspace, [groups, walkers, quantities, dim], and columns_add adds it up in a fixed order. */
#ifndef TMD_ROWS_CUH
#define TMD_ROWS_CUH

#include <type_traits>

#include "kernels/cuda/elementwise.cuh"
extern "C" {
#include "kernels/backend_open.h"
}

enum {
    ROW_PER_THREAD = 16,
    ROW_THREADS = 640, /* what a multiprocessor has registers for, at 96 each: the widest block */
    ROW_MAX = ROW_PER_THREAD * ROW_THREADS
};
static_assert((int)ROW_MAX == (int)BACKEND_CUDA_MAX_DIM, "what a configuration may ask for");
#define ROW_KERNEL __global__ void __launch_bounds__(ROW_THREADS)

/* Threads of a block for rows of `dim` channels. */
static inline unsigned int row_block(int64_t dim) {
    TMD_CHECK(dim <= ROW_MAX, "rows of %lld channels; at most %d fit a block's registers",
              (long long)dim, ROW_MAX);
    int64_t threads = (dim + ROW_PER_THREAD - 1) / ROW_PER_THREAD;
    return (unsigned int)((threads + WARP - 1) / WARP * WARP);
}

/* Blocks that share the rows of each of `groups` groups: as many in all as run at the same time. */
static inline unsigned int row_walkers(const struct Backend *be, int64_t groups, int64_t group_rows,
                                       int64_t dim) {
    int64_t resident = cuda_state(be)->n_multiprocessors * (int64_t)(ROW_THREADS / row_block(dim));
    int64_t walkers = resident / groups;
    return (unsigned int)(walkers < 1 ? 1 : walkers < group_rows ? walkers : group_rows);
}

/* A thread's runs of a row. */
template <int N> struct RowPart { Run<N> runs[ROW_PER_THREAD / N]; };

/* Calls f(i, column) for each of the calling thread's runs: its number in RowPart and the first
 * channel that it holds.  dim must be a multiple of N. */
template <int N, typename F> __device__ __forceinline__ void row_each(int64_t dim, F f) {
    for (int i = 0; i < ROW_PER_THREAD / N; i++) {
        int column = (i * (int)blockDim.x + (int)threadIdx.x) * N;
        if (column < (int)dim) f(i, column);
    }
}

template <int N, typename T>
__device__ __forceinline__ RowPart<N> row_load(const T *row, int64_t dim) {
    RowPart<N> part;
    row_each<N>(dim, [&](int i, int column) { part.runs[i] = run_load<N>(row + column); });
    return part;
}

template <int N, typename T>
__device__ __forceinline__ void row_store(T *row, int64_t dim, const RowPart<N> &part) {
    row_each<N>(dim, [&](int i, int column) { run_store(row + column, part.runs[i]); });
}

/* Calls f(N) with the length of the runs, an integral_constant: EACH_WIDTH where rows are `wide`,
 * that is runs_fit() for all of them, else `narrow`. */
template <int narrow = 1, typename F> inline void with_run_length(bool wide, F f) {
    if (wide)
        f(std::integral_constant<int, EACH_WIDTH>());
    else
        f(std::integral_constant<int, narrow>());
}

/* The place of quantity `which` of the calling block's sums; grid (walkers, groups). */
__device__ __forceinline__ float *walker_sums(float *sums, int n_quantities, int which,
                                              int64_t dim) {
    int64_t walker = (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
    return sums + (walker * n_quantities + which) * dim;
}

/* out[q][group * stride + column] += the sum over walkers of sums [groups, walkers, n_quantities,
 * dim], in double and in their order; n_quantities is 1 or 2.  Reads each sum once. */
void columns_add(const struct Backend *be, float *const out[], int n_quantities, const float *sums,
                 int64_t groups, int64_t stride, int64_t walkers, int64_t dim);

/* The workspace for the sums of those walkers. */
static inline float *walker_workspace(const struct Backend *be, int n_quantities, int64_t groups,
                                      int64_t walkers, int64_t dim) {
    return (float *)cuda_workspace(be,
                                   groups * walkers * n_quantities * dim * (int64_t)sizeof(float));
}

#endif
