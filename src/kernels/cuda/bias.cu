/* A bias laid under a product, and the gradient of a bias.
 *
 * Column sums are made in two passes, always in the same order.  First, each block sums a strip of
 * columns over a chunk of the rows: its warps read every WALKERS-th row of the chunk and sum it in
 * float, and are then added up in shared memory; x is read once, a warp's columns side by side.
 * Second, columns_add adds the chunks' sums in double.  Rows may be of any length. */
#include "kernels/cuda/gemm_epilogue.h"
#include "kernels/cuda/rows.cuh"

enum {
    SUM_BLOCK = 256,
    WALKERS = SUM_BLOCK / WARP,
    BLOCKS_PER_MULTIPROCESSOR = 6, /* as many as have room for their registers */
    MAX_CHUNKS = 256               /* what the second pass adds up */
};

/* Every row of out is `row`. */
template <typename T> struct RowsFill {
    T *out;
    const T *row;
    int64_t cols;

    template <int N> __device__ __forceinline__ void at(int64_t to, int64_t i) const {
        run_store(out + to * cols + i, run_load<N>(row + i));
    }
};

void cuda_rows_fill(const struct Backend *be, Act *out, const Act *row, int64_t rows,
                    int64_t cols) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        RowsFill<T> fill = {(T *)out, (const T *)row, cols};
        each(be, runs_fit(rows, cols, fill.out, fill.row), rows, cols, fill);
    });
}

/* partials [n_chunks, cols]; the grid: strips of WARP * N columns, chunks of rows. */
template <int N, typename T>
__global__ void __launch_bounds__(SUM_BLOCK)
    column_sums_kernel(float *partials, const T *x, int64_t rows, int64_t cols,
                       int64_t chunk_rows) {
    SHARED_ARRAY(float, of_walker, WALKERS *WARP *N);
    int lane = threadIdx.x % WARP, walker = threadIdx.x / WARP;
    int64_t column = ((int64_t)blockIdx.x * WARP + lane) * N, first = blockIdx.y * chunk_rows;
    int64_t end = first + chunk_rows < rows ? first + chunk_rows : rows;
    Run<N> sum = {};
    for (int64_t row = first + walker; row < end && column < cols; row += WALKERS) {
        Run<N> more = run_load<N>(x + row * cols + column);
        for (int k = 0; k < N; k++) sum.at[k] += more.at[k];
    }
    for (int k = 0; k < N; k++) of_walker[(walker * N + k) * WARP + lane] = sum.at[k];
    __syncthreads();
    if (walker > 0 || column >= cols) return;
    for (int k = 0; k < N; k++)
        for (int i = 1; i < WALKERS; i++) sum.at[k] += of_walker[(i * N + k) * WARP + lane];
    run_store(partials + blockIdx.y * cols + column, sum);
}

/* Enough chunks to keep the device busy, none of them without a row for each walker. */
static int64_t chunks_for(const struct Backend *be, int64_t rows, int64_t n_strips) {
    int64_t blocks = BLOCKS_PER_MULTIPROCESSOR * (int64_t)cuda_state(be)->n_multiprocessors;
    int64_t n_chunks = (blocks + n_strips - 1) / n_strips, most = (rows + WALKERS - 1) / WALKERS;
    if (n_chunks > MAX_CHUNKS) n_chunks = MAX_CHUNKS;
    return n_chunks < most ? n_chunks : most;
}

void cuda_column_sums(const struct Backend *be, float *sums, const Act *x, int64_t rows,
                      int64_t cols) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        bool wide = packs_fit((const T *)x, cols, 0) && cols % EACH_WIDTH == 0;
        with_run_length(wide, [&](auto length) {
            constexpr int N = decltype(length)::value;
            int64_t n_strips = (cols + WARP * N - 1) / (WARP * N);
            int64_t n_chunks = chunks_for(be, rows, n_strips);
            float *partials = walker_workspace(be, 1, 1, n_chunks, cols);
            dim3 grid((unsigned int)n_strips, (unsigned int)n_chunks);
            CUDA_LAUNCH(be, (column_sums_kernel<N, T>), grid, SUM_BLOCK, 0, partials, (const T *)x,
                        rows, cols, (rows + n_chunks - 1) / n_chunks);
            cuda_partials_add(be, sums, partials, n_chunks, cols);
        });
    });
}

void cuda_partials_add(const struct Backend *be, float *sums, const float *partials,
                       int64_t n_partials, int64_t cols) {
    columns_add(be, &sums, 1, partials, 1, 0, n_partials, cols);
}
