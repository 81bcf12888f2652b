/* Linear layers on float32 vectors: few rows (a batch), wide matrices, so that the time is that of
 * reading or updating W [n_out, n_in] once.  Each kernel gives a thread WIDTH neighbouring columns
 * of W where addresses allow 16-byte accesses (one column otherwise), and reuses what it reads of W
 * for up to ROWS rows, what it reads of a row for OUTS outputs.
 *
 *     forward          a warp computes OUTS outputs of ROWS rows; its lanes stride along n_in
 *     backward_input   a block's warps stride along n_out over a strip of columns; n_out is split
 *                      between n_parts blocks, whose sums a second kernel adds up
 *     backward_params  a thread updates WIDTH columns of OUTS outputs by the sum over all rows
 *
 * Every sum is made in an order that the shape alone decides. */
#include "kernels/cuda/elementwise.cuh"

namespace {

enum {
    WIDTH = Pack<float>::WIDTH,
    ROWS = 8,
    OUTS = WARP / ROWS, /* a warp's results of forward: one per lane */
    N_WARPS = 8,
    LINEAR_BLOCK = N_WARPS * WARP,
    ENOUGH_BLOCKS = 256 /* to keep the memory of the largest devices busy: two each */
};

/* Addresses of rows beyond the last repeat it: their sums are not used. */
__device__ __forceinline__ int64_t clamp_row(int64_t row, int64_t n_rows) {
    return row < n_rows ? row : n_rows - 1;
}

template <int N>
__global__ void __launch_bounds__(LINEAR_BLOCK)
    forward_kernel(float *y, const float *x, const float *w, const float *b, struct LinearShape s) {
    int lane = threadIdx.x % WARP;
    int64_t out = ((int64_t)blockIdx.x * N_WARPS + threadIdx.x / WARP) * OUTS;
    int64_t row = (int64_t)blockIdx.y * ROWS;
    float sum[OUTS][ROWS] = {}, mine = 0.0f;
    for (int64_t i = lane * N; i < s.n_in; i += WARP * N) {
        Run<N> weights[OUTS];
        for (int o = 0; o < OUTS; o++)
            weights[o] = run_load<N>(w + clamp_row(out + o, s.n_out) * s.n_in + i);
        for (int r = 0; r < ROWS; r++) {
            Run<N> xs = run_load<N>(x + clamp_row(row + r, s.rows) * s.n_in + i);
            for (int o = 0; o < OUTS; o++)
                for (int k = 0; k < N; k++) sum[o][r] += weights[o].at[k] * xs.at[k];
        }
    }
    for (int o = 0; o < OUTS; o++)
        for (int r = 0; r < ROWS; r++) {
            float total = warp_sum(sum[o][r]);
            if (lane == o * ROWS + r) mine = total;
        }
    out += lane / ROWS;
    row += lane % ROWS;
    if (out < s.n_out && row < s.rows) y[row * s.n_out + out] = mine + b[out];
}

/* parts [n_parts, rows, n_in]: the sums over each part of the outputs.  The grid: column strips,
 * parts, groups of rows. */
template <int N>
__global__ void __launch_bounds__(LINEAR_BLOCK)
    backward_input_kernel(float *parts, const float *dy, const float *w, struct LinearShape s) {
    enum { STRIP = WARP * N, N_SUMS = N_WARPS * STRIP };
    SHARED_ARRAY(float, of_warp, N_SUMS);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int64_t strip = (int64_t)blockIdx.x * STRIP, column = strip + lane * N;
    int64_t part = blockIdx.y, n_parts = gridDim.y, row = (int64_t)blockIdx.z * ROWS;
    int64_t out = s.n_out * part / n_parts + warp * OUTS, end = s.n_out * (part + 1) / n_parts;
    Run<N> sum[ROWS] = {};
    for (; out < end && column < s.n_in; out += N_WARPS * OUTS) {
        Run<N> weights[OUTS];
        for (int o = 0; o < OUTS; o++) /* all under way at once */
            weights[o] = out + o < end ? run_load<N>(w + (out + o) * s.n_in + column) : Run<N>{};
        for (int o = 0; o < OUTS; o++)
            for (int r = 0; r < ROWS; r++) {
                float d = dy[clamp_row(row + r, s.rows) * s.n_out + clamp_row(out + o, end)];
                for (int k = 0; k < N; k++) sum[r].at[k] += d * weights[o].at[k];
            }
    }
    for (int r = 0; r < ROWS; r++) { /* over the warps, in order */
        for (int k = 0; k < N; k++) of_warp[warp * STRIP + lane * N + k] = sum[r].at[k];
        __syncthreads();
        if (threadIdx.x < STRIP && strip + threadIdx.x < s.n_in && row + r < s.rows) {
            float total = 0.0f;
            for (int i = 0; i < N_WARPS; i++) total += of_warp[i * STRIP + threadIdx.x];
            parts[(part * s.rows + row + r) * s.n_in + strip + threadIdx.x] = total;
        }
        __syncthreads();
    }
}

/* out = the sum of n_parts arrays. */
struct SumOfParts {
    float *out;
    const float *parts;
    int64_t n_parts, n_elems;

    template <int N> __device__ __forceinline__ void at(int64_t, int64_t i) const {
        Run<N> sum = {};
        for (int64_t part = 0; part < n_parts; part++) {
            Run<N> more = run_load<N>(parts + part * n_elems + i);
            for (int k = 0; k < N; k++) sum.at[k] += more.at[k];
        }
        run_store(out + i, sum);
    }
};

/* db may be NULL.  The grid: column strips, groups of outputs. */
template <int N>
__global__ void __launch_bounds__(LINEAR_BLOCK)
    backward_params_kernel(float *dw, float *db, const float *x, const float *dy,
                           struct LinearShape s) {
    int64_t column = ((int64_t)blockIdx.x * WARP + threadIdx.x % WARP) * N;
    int64_t out = ((int64_t)blockIdx.y * N_WARPS + threadIdx.x / WARP) * OUTS;
    if (column >= s.n_in) return;
    Run<N> gradient[OUTS], sum[OUTS] = {};
    float bias_sum[OUTS] = {};
    for (int o = 0; o < OUTS; o++) /* under way while the rows are summed */
        gradient[o] = run_load<N>(dw + clamp_row(out + o, s.n_out) * s.n_in + column);
    for (int64_t row = 0; row < s.rows; row++) {
        Run<N> xs = run_load<N>(x + row * s.n_in + column);
        for (int o = 0; o < OUTS; o++) {
            float d = dy[row * s.n_out + clamp_row(out + o, s.n_out)];
            bias_sum[o] += d;
            for (int k = 0; k < N; k++) sum[o].at[k] += d * xs.at[k];
        }
    }
    for (int o = 0; o < OUTS; o++) {
        if (out + o >= s.n_out) break;
        for (int k = 0; k < N; k++) gradient[o].at[k] += sum[o].at[k];
        run_store(dw + (out + o) * s.n_in + column, gradient[o]);
        if (db && column == 0) db[out + o] += bias_sum[o];
    }
}

/* f(integral_constant of the columns per access): WIDTH where rows of n_in columns allow it. */
template <typename F, typename... T>
void with_width(struct LinearShape s, F f, const T *...matrices) {
    if ((packs_fit(matrices, s.n_in, 0) && ...))
        f(std::integral_constant<int, WIDTH>{});
    else
        f(std::integral_constant<int, 1>{});
}

dim3 grid_of(int64_t x, int64_t y, int64_t z) {
    TMD_CHECK(x <= INT32_MAX && y <= UINT16_MAX && z <= UINT16_MAX, "a grid of %lld x %lld x %lld",
              (long long)x, (long long)y, (long long)z);
    return dim3((unsigned int)x, (unsigned int)y, (unsigned int)z);
}

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

} // namespace

extern "C" void cuda_linear_f32_forward(const struct Backend *be, float *y, const float *x,
                                        const float *w, const float *b, struct LinearShape s) {
    dim3 grid = grid_of(ceil_div(s.n_out, OUTS * N_WARPS), ceil_div(s.rows, ROWS), 1);
    with_width(
        s,
        [&](auto width) {
            CUDA_LAUNCH(be, (forward_kernel<width()>), grid, LINEAR_BLOCK, 0, y, x, w, b, s);
        },
        x, w);
}

extern "C" void cuda_linear_f32_backward_input(const struct Backend *be, float *dx, const float *dy,
                                               const float *w, struct LinearShape s) {
    with_width(
        s,
        [&](auto width) {
            int64_t strips = ceil_div(s.n_in, WARP * width()), row_groups = ceil_div(s.rows, ROWS);
            int64_t most_parts = ceil_div(s.n_out, OUTS * N_WARPS);
            int64_t n_parts = ceil_div(ENOUGH_BLOCKS, strips * row_groups);
            if (n_parts > most_parts) n_parts = most_parts;
            int64_t n_elems = s.rows * s.n_in, n_bytes = n_parts * n_elems * sizeof(float);
            float *parts = (float *)cuda_workspace(be, n_bytes);
            CUDA_LAUNCH(be, (backward_input_kernel<width()>), grid_of(strips, n_parts, row_groups),
                        LINEAR_BLOCK, 0, parts, dy, w, s);
            each(be, runs_fit(n_parts, n_elems, dx, parts), 1, n_elems,
                 SumOfParts{dx, parts, n_parts, n_elems});
        },
        w);
}

extern "C" void cuda_linear_f32_backward_params(const struct Backend *be, float *dw, float *db,
                                                const float *x, const float *dy,
                                                struct LinearShape s) {
    with_width(
        s,
        [&](auto width) {
            dim3 grid =
                grid_of(ceil_div(s.n_in, WARP * width()), ceil_div(s.n_out, OUTS * N_WARPS), 1);
            CUDA_LAUNCH(be, (backward_params_kernel<width()>), grid, LINEAR_BLOCK, 0, dw, db, x, dy,
                        s);
        },
        x, dw);
}
