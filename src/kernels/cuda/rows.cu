/* What the walkers of rows.cuh have summed, added up: a block takes 32 columns of one quantity,
 * each of its warps every 32nd walker, and the first warp adds the warps' sums. */
#include "kernels/cuda/rows.cuh"

enum { COLUMNS = WARP, N_WARPS = 32, N_THREADS = N_WARPS * WARP };

struct Columns {
    float *first, *second;
    int64_t stride, walkers, dim;
};

/* grid (columns / 32, n_quantities, groups) */
static __global__ void __launch_bounds__(N_THREADS)
    columns_add_kernel(Columns c, const float *sums) {
    SHARED_ARRAY(double, partial, N_THREADS);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int64_t column = (int64_t)blockIdx.x * COLUMNS + lane, group = blockIdx.z;
    const float *first = sums + (group * c.walkers * gridDim.y + blockIdx.y) * c.dim + column;
    double sum = 0.0;
    if (column < c.dim)
        for (int64_t i = warp; i < c.walkers; i += N_WARPS)
            sum += (double)first[i * gridDim.y * c.dim];
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || column >= c.dim) return;
    for (int i = 1; i < N_WARPS; i++) sum += partial[i * COLUMNS + lane];
    float *out = blockIdx.y == 0 ? c.first : c.second;
    out[group * c.stride + column] += (float)sum;
}

void columns_add(const struct Backend *be, float *const out[], int n_quantities, const float *sums,
                 int64_t groups, int64_t stride, int64_t walkers, int64_t dim) {
    Columns c = {out[0], n_quantities > 1 ? out[1] : nullptr, stride, walkers, dim};
    dim3 grid((unsigned int)((dim + COLUMNS - 1) / COLUMNS), (unsigned int)n_quantities,
              (unsigned int)groups);
    CUDA_LAUNCH(be, (columns_add_kernel), grid, N_THREADS, 0, c, sums);
}
