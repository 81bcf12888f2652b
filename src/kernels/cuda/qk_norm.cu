/* RMS norm of queries and keys over the whole width, then rotary embedding.
 *
 * Forward: z = x rstd w, and each pair (a, b) of a head becomes (a c - b s, a s + b c).
 * Backward: the rotation is undone by its transpose, dz = R^T dy; then
 *     dx = rstd (dz w - x rstd^2 mean(dz w x)),  dw = sum over rows of dz x rstd.
 *
 * A block holds a row in registers (rows.cuh): x is read and y written once; in backward dy and x
 * are read and dx written once, and dw is summed by blocks that walk over the rows.  w and the
 * angles, the same for all heads of a token, come from the caches.  A run never crosses a head, so
 * that its cosines and sines are consecutive, and holds whole pairs where there is a rotation. */
#include "kernels/cuda/rows.cuh"

/* The pairs of v turned by the cosines and sines cs: sign 1 forward, -1 back. */
template <int N>
__device__ __forceinline__ Run<N> rotated(const Run<N> &v, const Run<N> &cs, float sign) {
    Run<N> out = v;
    if constexpr (N % 2 == 0) {
        for (int k = 0; k < N; k += 2) {
            float a = v.at[k], b = v.at[k + 1], c = cs.at[k], s = sign * cs.at[k + 1];
            out.at[k] = a * c - b * s;
            out.at[k + 1] = a * s + b * c;
        }
    }
    return out;
}

/* grid (tokens, batch) */
template <typename T, int N>
ROW_KERNEL qk_norm_kernel(T *y, float *rstd, const T *x, const float *w, const float *cos_sin,
                          QkNormShape s, int head_dim) {
    SHARED_ARRAY(float, partial, WARP);
    int64_t row = (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
    const float *cs = cos_sin ? cos_sin + (int64_t)blockIdx.x * head_dim : nullptr;
    RowPart<N> v = row_load<N>(x + row * s.x_stride, s.dim);
    float squares = 0.0f;
    row_each<N>(s.dim, [&](int i, int) {
        for (float e : v.runs[i].at) squares += e * e;
    });
    float r = 1.0f / sqrtf(block_sum(squares, partial) / (float)s.dim + s.eps);
    row_each<N>(s.dim, [&](int i, int column) {
        Run<N> z = run_load<N>(w + column);
        for (int k = 0; k < N; k++) z.at[k] *= v.runs[i].at[k] * r;
        if (cs) z = rotated(z, run_load<N>(cs + column % head_dim), 1.0f);
        v.runs[i] = z;
    });
    row_store(y + row * s.dim, s.dim, v);
    if (threadIdx.x == 0) rstd[row] = r;
}

/* Calls f(N, head_dim) with the length of the runs, an integral_constant.  Rows of `dense` are dim
 * apart, those of x and dx (or NULL) x_stride. */
template <typename T, typename F>
static void with_qk_run_length(const T *dense, const T *x, const T *dx, const float *w,
                               const float *cos_sin, QkNormShape s, F f) {
    int head_dim = (int)(s.dim / s.heads);
    bool wide = head_dim % EACH_WIDTH == 0 && runs_fit(1, 0, dense, w, cos_sin) &&
                runs_fit(s.batch * s.tokens, s.x_stride, x, dx);
    auto with_head = [&](auto length) { f(length, head_dim); };
    if (cos_sin)
        with_run_length<2>(wide, with_head);
    else
        with_run_length(wide, with_head);
}

void cuda_qk_norm_forward(const struct Backend *be, Act *y, float *rstd, const Act *x,
                          const float *w, const float *cos_sin, QkNormShape s) {
    dim3 grid((unsigned int)s.tokens, (unsigned int)s.batch);
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        auto *yt = reinterpret_cast<T *>(y);
        auto *xt = reinterpret_cast<const T *>(x);
        with_qk_run_length<T>(yt, xt, nullptr, w, cos_sin, s, [&](auto length, int head_dim) {
            CUDA_LAUNCH(be, (qk_norm_kernel<T, length()>), grid, row_block(s.dim), 0, yt, rstd, xt,
                        w, cos_sin, s, head_dim);
        });
    });
}

/* grid (walkers); sums: of dw, unused without PARAMS. */
template <typename T, int N, bool PARAMS>
ROW_KERNEL qk_norm_backward_kernel(T *dx, float *sums, const T *dy, const T *x, const float *rstd,
                                   const float *w, const float *cos_sin, QkNormShape s,
                                   int head_dim) {
    SHARED_ARRAY(float, partial, WARP);
    RowPart<N> dw = {};
    for (int64_t row = blockIdx.x; row < s.batch * s.tokens; row += gridDim.x) {
        float r = rstd[row], sum = 0.0f;
        int token = (int)row % (int)s.tokens;
        const float *cs = cos_sin ? cos_sin + (int64_t)token * head_dim : nullptr;
        RowPart<N> in = row_load<N>(x + row * s.x_stride, s.dim);
        RowPart<N> g = row_load<N>(dy + row * s.dim, s.dim); /* dy, then dz w */
        row_each<N>(s.dim, [&](int i, int column) {
            Run<N> wi = run_load<N>(w + column), dz = g.runs[i];
            if (cs) dz = rotated(dz, run_load<N>(cs + column % head_dim), -1.0f);
            for (int k = 0; k < N; k++) {
                float xk = in.runs[i].at[k];
                if (PARAMS) dw.runs[i].at[k] += dz.at[k] * xk * r;
                g.runs[i].at[k] = dz.at[k] * wi.at[k];
                sum += g.runs[i].at[k] * xk;
            }
        });
        float along = block_sum(sum, partial) / (float)s.dim * r * r;
        row_each<N>(s.dim, [&](int i, int) {
            for (int k = 0; k < N; k++) {
                float &e = in.runs[i].at[k];
                e = r * (g.runs[i].at[k] - e * along);
            }
        });
        row_store(dx + row * s.x_stride, s.dim, in);
    }
    if (PARAMS) row_store(walker_sums(sums, 1, 0, s.dim), s.dim, dw);
}

void cuda_qk_norm_backward(const struct Backend *be, Act *dx, float *dw, const Act *dy,
                           const Act *x, const float *rstd, const float *w, const float *cos_sin,
                           QkNormShape s) {
    int64_t rows = s.batch * s.tokens;
    unsigned int walkers = row_walkers(be, 1, rows, s.dim), block = row_block(s.dim);
    float *sums = dw ? walker_workspace(be, 1, 1, walkers, s.dim) : nullptr;
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        auto *dxt = reinterpret_cast<T *>(dx);
        auto *dyt = reinterpret_cast<const T *>(dy), *xt = reinterpret_cast<const T *>(x);
        with_qk_run_length<T>(dyt, xt, dxt, w, cos_sin, s, [&](auto length, int head_dim) {
            if (dw)
                CUDA_LAUNCH(be, (qk_norm_backward_kernel<T, length(), true>), walkers, block, 0,
                            dxt, sums, dyt, xt, rstd, w, cos_sin, s, head_dim);
            else
                CUDA_LAUNCH(be, (qk_norm_backward_kernel<T, length(), false>), (unsigned int)rows,
                            block, 0, dxt, sums, dyt, xt, rstd, w, cos_sin, s, head_dim);
        });
    });
    if (dw) columns_add(be, &dw, 1, sums, 1, 0, walkers, s.dim);
}
