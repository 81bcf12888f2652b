/* Layer norm with modulation, and gated residuals.  Formulas: as in the header of the operations;
 * with xhat = (x - mean) rstd and g = dy (one + scale), dx = rstd (g - mean(g) - xhat mean(g
 * xhat)),  dscale = sum dy xhat,  dshift = sum dy.
 *
 * Every kernel reads its inputs and writes its outputs once: a block holds a row in registers
 * (rows.cuh), takes the mean and then the variance about it, so that a mean far from zero costs no
 * digits.  scale, shift and gate come from the first-level cache, being the same for all of a
 * sample's rows.  Backward's sums over rows are kept in registers by blocks that walk over the
 * rows, in float32 for the some hundred rows of a block and in double over the blocks.
 *
 * Rows belong to groups that share a row of parameters: one per sample, or, with stride 0, one in
 * all. */
#include "kernels/cuda/rows.cuh"

struct Groups {
    int64_t n, rows; /* rows of each */

    dim3 grid(int64_t blocks_of_each) const {
        return dim3((unsigned int)blocks_of_each, (unsigned int)n);
    }
    dim3 every_row() const {
        return grid(rows);
    }
};

static Groups groups_of(NormShape s) {
    return s.stride ? Groups{s.batch, s.tokens} : Groups{1, s.batch * s.tokens};
}

/* ---- layer norm */

struct RowStatistics { float mean, rstd; };

/* A row v becomes its norm; scale, shift: of the row's group.  All threads get its statistics. */
template <int N>
__device__ __forceinline__ RowStatistics row_norm(RowPart<N> &v, const float *scale,
                                                  const float *shift, const NormShape &s,
                                                  float *partial) {
    float sum = 0.0f, squares = 0.0f;
    row_each<N>(s.dim, [&](int i, int) {
        for (float e : v.runs[i].at) sum += e;
    });
    float mu = block_sum(sum, partial) / (float)s.dim;
    row_each<N>(s.dim, [&](int i, int) {
        for (float e : v.runs[i].at) squares += (e - mu) * (e - mu);
    });
    float r = 1.0f / sqrtf(block_sum(squares, partial) / (float)s.dim + s.eps);
    row_each<N>(s.dim, [&](int i, int column) {
        Run<N> sc = run_load<N>(scale + column), sh = run_load<N>(shift + column);
        for (int k = 0; k < N; k++) {
            float xhat = (v.runs[i].at[k] - mu) * r;
            v.runs[i].at[k] = xhat * (s.one + sc.at[k]) + sh.at[k];
        }
    });
    return {mu, r};
}

/* grid (rows of a group, groups) */
template <typename T, int N>
ROW_KERNEL layer_norm_kernel(T *y, float *mean, float *rstd, const T *x, const float *scale,
                             const float *shift, NormShape s) {
    SHARED_ARRAY(float, partial, WARP);
    int64_t group = blockIdx.y, row = group * gridDim.x + blockIdx.x;
    RowPart<N> v = row_load<N>(x + row * s.dim, s.dim);
    RowStatistics stats =
        row_norm(v, scale + group * s.stride, shift + group * s.stride, s, partial);
    row_store(y + row * s.dim, s.dim, v);
    if (threadIdx.x == 0) mean[row] = stats.mean, rstd[row] = stats.rstd;
}

void cuda_layer_norm_forward(const struct Backend *be, Act *y, float *mean, float *rstd,
                             const Act *x, const float *scale, const float *shift, NormShape s) {
    Groups groups = groups_of(s);
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        auto *yt = reinterpret_cast<T *>(y);
        auto *xt = reinterpret_cast<const T *>(x);
        bool wide = s.dim % EACH_WIDTH == 0 && runs_fit(1, 0, yt, xt) &&
                    runs_fit(groups.n, s.stride, scale, shift);
        with_run_length(wide, [&](auto length) {
            CUDA_LAUNCH(be, (layer_norm_kernel<T, length()>), groups.every_row(), row_block(s.dim),
                        0, yt, mean, rstd, xt, scale, shift, s);
        });
    });
}

/* grid (walkers, groups); sums: of dscale and dshift, unused without PARAMS. */
template <typename T, int N, bool PARAMS>
ROW_KERNEL layer_norm_backward_kernel(T *dx, float *sums, const T *dy, const T *x,
                                      const float *mean, const float *rstd, const float *scale,
                                      NormShape s, int64_t group_rows, bool accumulate) {
    SHARED_ARRAY(Two<float>, partial, WARP);
    int64_t group = blockIdx.y;
    RowPart<N> dscale = {}, dshift = {};
    scale += group * s.stride;
    for (int64_t i_row = blockIdx.x; i_row < group_rows; i_row += gridDim.x) {
        int64_t row = group * group_rows + i_row;
        float mu = mean[row], r = rstd[row];
        RowPart<N> in = row_load<N>(x + row * s.dim, s.dim);
        RowPart<N> d = row_load<N>(dy + row * s.dim, s.dim), out = {};
        if (accumulate) out = row_load<N>(dx + row * s.dim, s.dim);
        /* f(i, k, dy, xhat, g) for each channel of the thread */
        auto channels = [&](auto f) {
            row_each<N>(s.dim, [&](int i, int column) {
                Run<N> sc = run_load<N>(scale + column);
                for (int k = 0; k < N; k++) {
                    float dyk = d.runs[i].at[k], xhat = (in.runs[i].at[k] - mu) * r;
                    f(i, k, dyk, xhat, dyk * (s.one + sc.at[k]));
                }
            });
        };
        Two<float> sum(0.0f);
        channels([&](int i, int k, float dyk, float xhat, float g) {
            if (PARAMS) {
                dscale.runs[i].at[k] += dyk * xhat;
                dshift.runs[i].at[k] += dyk;
            }
            sum += Two<float>(g, g * xhat);
        });
        sum = block_sum(sum, partial);
        float mean_g = sum.first / (float)s.dim, mean_gx = sum.second / (float)s.dim;
        channels([&](int i, int k, float, float xhat, float g) {
            out.runs[i].at[k] += r * (g - mean_g - xhat * mean_gx);
        });
        row_store(dx + row * s.dim, s.dim, out);
    }
    if (PARAMS) {
        row_store(walker_sums(sums, 2, 0, s.dim), s.dim, dscale);
        row_store(walker_sums(sums, 2, 1, s.dim), s.dim, dshift);
    }
}

void cuda_layer_norm_backward(const struct Backend *be, Act *dx, float *dscale, float *dshift,
                              const Act *dy, const Act *x, const float *mean, const float *rstd,
                              const float *scale, NormShape s, bool accumulate) {
    Groups groups = groups_of(s);
    unsigned int walkers = row_walkers(be, groups.n, groups.rows, s.dim), block = row_block(s.dim);
    float *const out[2] = {dscale, dshift};
    float *sums = dscale ? walker_workspace(be, 2, groups.n, walkers, s.dim) : nullptr;
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        auto *dxt = reinterpret_cast<T *>(dx);
        auto *dyt = reinterpret_cast<const T *>(dy), *xt = reinterpret_cast<const T *>(x);
        bool wide = s.dim % EACH_WIDTH == 0 && runs_fit(1, 0, dxt, dyt, xt) &&
                    runs_fit(groups.n, s.stride, scale);
        with_run_length(wide, [&](auto length) {
            if (dscale)
                CUDA_LAUNCH(be, (layer_norm_backward_kernel<T, length(), true>),
                            groups.grid(walkers), block, 0, dxt, sums, dyt, xt, mean, rstd, scale,
                            s, groups.rows, accumulate);
            else
                CUDA_LAUNCH(be, (layer_norm_backward_kernel<T, length(), false>),
                            groups.every_row(), block, 0, dxt, sums, dyt, xt, mean, rstd, scale, s,
                            groups.rows, accumulate);
        });
    });
    if (dscale) columns_add(be, out, 2, sums, groups.n, s.stride, walkers, s.dim);
}

/* ---- gated residuals */

/* x + h gate of a row; gate: of the row's group, or NULL. */
template <int N, typename T>
__device__ __forceinline__ RowPart<N> row_gated(const T *x, const T *h, const float *gate,
                                                int64_t dim) {
    RowPart<N> v = row_load<N>(x, dim), add = row_load<N>(h, dim);
    row_each<N>(dim, [&](int i, int column) {
        Run<N> factor;
        for (float &f : factor.at) f = 1.0f;
        if (gate) factor = run_load<N>(gate + column);
        for (int k = 0; k < N; k++) v.runs[i].at[k] += add.runs[i].at[k] * factor.at[k];
    });
    return v;
}

/* grid (rows of a group, groups) */
template <typename T, int N>
ROW_KERNEL gate_kernel(T *out, const T *x, const T *h, const float *gate, NormShape s) {
    int64_t group = blockIdx.y, row = group * gridDim.x + blockIdx.x, at = row * s.dim;
    if (gate) gate += group * s.stride;
    row_store(out + at, s.dim, row_gated<N>(x + at, h + at, gate, s.dim));
}

void cuda_gate_forward(const struct Backend *be, Act *out, const Act *x, const Act *h,
                       const float *gate, NormShape s) {
    Groups groups = groups_of(s);
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        auto *outt = reinterpret_cast<T *>(out);
        auto *xt = reinterpret_cast<const T *>(x), *ht = reinterpret_cast<const T *>(h);
        bool wide = s.dim % EACH_WIDTH == 0 && runs_fit(1, 0, outt, xt, ht) &&
                    runs_fit(groups.n, s.stride, gate);
        with_run_length(wide, [&](auto length) {
            CUDA_LAUNCH(be, (gate_kernel<T, length()>), groups.every_row(), row_block(s.dim), 0,
                        outt, xt, ht, gate, s);
        });
    });
}

/* grid (tokens, samples): gates belong to a sample even where scale and shift do not. */
template <typename T, int N>
ROW_KERNEL gate_norm_kernel(T *out, T *y, float *mean, float *rstd, const T *x, const T *h,
                            const float *gate, int64_t gate_stride, const float *scale,
                            const float *shift, NormShape s) {
    SHARED_ARRAY(float, partial, WARP);
    int64_t sample = blockIdx.y, row = sample * gridDim.x + blockIdx.x, at = row * s.dim;
    if (gate) gate += sample * gate_stride;
    RowPart<N> v = row_gated<N>(x + at, h + at, gate, s.dim);
    row_store(out + at, s.dim, v);
    row_each<N>(s.dim, [&](int i, int) {
        for (float &e : v.runs[i].at) e = to_f32(from_f32<T>(e)); /* as backward will read it */
    });
    RowStatistics stats =
        row_norm(v, scale + sample * s.stride, shift + sample * s.stride, s, partial);
    row_store(y + at, s.dim, v);
    if (threadIdx.x == 0) mean[row] = stats.mean, rstd[row] = stats.rstd;
}

void cuda_gate_norm_forward(const struct Backend *be, Act *out, Act *y, float *mean, float *rstd,
                            const Act *x, const Act *h, const float *gate, int64_t gate_stride,
                            const float *scale, const float *shift, NormShape s) {
    Groups samples = {s.batch, s.tokens};
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        auto *outt = reinterpret_cast<T *>(out), *yt = reinterpret_cast<T *>(y);
        auto *xt = reinterpret_cast<const T *>(x), *ht = reinterpret_cast<const T *>(h);
        bool wide = s.dim % EACH_WIDTH == 0 && runs_fit(1, 0, outt, yt, xt, ht) &&
                    runs_fit(samples.n, gate_stride, gate) &&
                    runs_fit(samples.n, s.stride, scale, shift);
        with_run_length(wide, [&](auto length) {
            CUDA_LAUNCH(be, (gate_norm_kernel<T, length()>), samples.every_row(), row_block(s.dim),
                        0, outt, yt, mean, rstd, xt, ht, gate, gate_stride, scale, shift, s);
        });
    });
}

/* grid (walkers, groups).  Without PARAMS h is not read. */
template <typename T, int N, bool PARAMS>
ROW_KERNEL gate_backward_kernel(T *dh, float *sums, const T *dout, const T *h, const float *gate,
                                NormShape s, int64_t group_rows) {
    int64_t group = blockIdx.y;
    RowPart<N> dgate = {}, factor = row_load<N>(gate + group * s.stride, s.dim);
    for (int64_t i_row = blockIdx.x; i_row < group_rows; i_row += gridDim.x) {
        int64_t at = (group * group_rows + i_row) * s.dim;
        RowPart<N> d = row_load<N>(dout + at, s.dim), in = {};
        if (PARAMS) in = row_load<N>(h + at, s.dim);
        row_each<N>(s.dim, [&](int i, int) {
            for (int k = 0; k < N; k++) {
                if (PARAMS) dgate.runs[i].at[k] += d.runs[i].at[k] * in.runs[i].at[k];
                d.runs[i].at[k] *= factor.runs[i].at[k];
            }
        });
        row_store(dh + at, s.dim, d);
    }
    if (PARAMS) row_store(walker_sums(sums, 1, 0, s.dim), s.dim, dgate);
}

void cuda_gate_backward(const struct Backend *be, Act *dh, float *dgate, const Act *dout,
                        const Act *h, const float *gate, NormShape s) {
    Groups groups = groups_of(s);
    unsigned int walkers = row_walkers(be, groups.n, groups.rows, s.dim), block = row_block(s.dim);
    dim3 grid = groups.grid(walkers);
    float *sums = dgate ? walker_workspace(be, 1, groups.n, walkers, s.dim) : nullptr;
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        auto *dht = reinterpret_cast<T *>(dh);
        auto *doutt = reinterpret_cast<const T *>(dout), *ht = reinterpret_cast<const T *>(h);
        bool wide = s.dim % EACH_WIDTH == 0 && runs_fit(1, 0, dht, doutt, ht) &&
                    runs_fit(groups.n, s.stride, gate);
        with_run_length(wide, [&](auto length) {
            if (dgate)
                CUDA_LAUNCH(be, (gate_backward_kernel<T, length(), true>), grid, block, 0, dht,
                            sums, doutt, ht, gate, s, groups.rows);
            else
                CUDA_LAUNCH(be, (gate_backward_kernel<T, length(), false>), grid, block, 0, dht,
                            sums, doutt, ht, gate, s, groups.rows);
        });
    });
    if (dgate) columns_add(be, &dgate, 1, sums, groups.n, s.stride, walkers, s.dim);
}
