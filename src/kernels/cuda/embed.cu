/* Times, SiLU, modulation rows, conversions, and the fusion of the main feature with the inner
 * latent.
 *
 * All but two are one pass of elementwise.cuh: they read their inputs and write their outputs once.
 * mix_backward sums on the way (row_sums.cuh); the rows of rows_add are few and short, so that one
 * thread takes a column of all of them, in order. */
#include <algorithm>

#include "kernels/cuda/row_sums.cuh"

namespace {

__device__ __forceinline__ float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* ---- times */

/* Host arrays travel as kernel arguments, which may have 4 KB. */
enum { TIMES_PER_LAUNCH = 256 };

/* Element i of a half row: the angle in float64, then its cosine and sine. */
struct Sinusoid {
    float *out;
    int64_t half;
    double t[TIMES_PER_LAUNCH];

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t i) const {
        for (int64_t k = i; k < i + N; k++) {
            double angle = 1000.0 * t[row] * pow(10000.0, -(double)k / half);
            out[row * 2 * half + k] = (float)cos(angle);
            out[row * 2 * half + half + k] = (float)sin(angle);
        }
    }
};

/* ---- one float out of some floats */

struct Identity {
    __device__ __forceinline__ float operator()(float x) const {
        return x;
    }
};

struct Sum {
    __device__ __forceinline__ float operator()(float a, float b) const {
        return a + b;
    }
};

struct Silu {
    __device__ __forceinline__ float operator()(float x) const {
        return x * sigmoid(x);
    }
};

struct SiluGradient {
    __device__ __forceinline__ float operator()(float dy, float x) const {
        float s = sigmoid(x);
        return dy * (s + x * s * (1.0f - s));
    }
    __device__ __forceinline__ float operator()(float dy, float x, float dx_before) const {
        return dx_before + (*this)(dy, x);
    }
};

struct Mix {
    const float *logit;
    __device__ __forceinline__ float operator()(float m, float h) const {
        float g = sigmoid(*logit);
        return (1.0f - g) * m + g * h;
    }
};

/* ---- the way back through a mix */

/* Writes dm and dh and sums dout (h - m). */
template <typename T> struct MixGradient {
    T *dm, *dh;
    const T *dout, *m, *h;
    const float *logit;

    template <int N> __device__ __forceinline__ double at(int64_t, int64_t i) const {
        float g = sigmoid(*logit);
        Run<N> d = run_load<N>(dout + i), ms = run_load<N>(m + i), hs = run_load<N>(h + i);
        double sum = 0.0;
        for (int k = 0; k < N; k++) {
            sum += (double)d.at[k] * (hs.at[k] - ms.at[k]);
            ms.at[k] = (1.0f - g) * d.at[k];
            hs.at[k] = g * d.at[k];
        }
        run_store(dm + i, ms);
        run_store(dh + i, hs);
        return sum;
    }
};

struct AddLogitGradient {
    float *dlogit;
    const float *logit;
    __device__ void operator()(int64_t, double total) const {
        float g = sigmoid(*logit);
        *dlogit += (float)(total * g * (1.0f - g));
    }
};

/* ---- rows and columns */

struct RowsAdd {
    float *out;
    const float *in, *row;
    int64_t in_stride, batch, n_elems;

    template <int N> __device__ __forceinline__ void at(int64_t, int64_t i) const {
        Run<N> addend = run_load<N>(row + i);
        for (int64_t b = 0; b < batch; b++) {
            Run<N> x = run_load<N>(in + b * in_stride + i);
            for (int k = 0; k < N; k++) x.at[k] += addend.at[k];
            run_store(out + b * n_elems + i, x);
        }
    }
};

/* x[i] += more[i] */
template <int N> __device__ __forceinline__ void run_add(float *x, const Run<N> &more) {
    Run<N> sum = run_load<N>(x);
    for (int k = 0; k < N; k++) sum.at[k] += more.at[k];
    run_store(x, sum);
}

struct RowsAddGradient {
    float *din;
    int64_t din_stride;
    float *drow;
    const float *dout;
    int64_t batch, n_elems;

    template <int N> __device__ __forceinline__ void at(int64_t, int64_t i) const {
        Run<N> sum = {};
        for (int64_t b = 0; b < batch; b++) {
            Run<N> d = run_load<N>(dout + b * n_elems + i);
            if (din) run_add(din + b * din_stride + i, d);
            for (int k = 0; k < N; k++) sum.at[k] += d.at[k];
        }
        if (drow) run_add(drow + i, sum);
    }
};

/* A row [a, b] counts as two rows of dim elements: both halves must suit 16-byte accesses. */
template <typename T> struct ColumnsJoin {
    T *out;
    const T *a, *b;
    int64_t dim;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t i) const {
        run_store(out + row * 2 * dim + i, run_load<N>(a + row * dim + i));
        run_store(out + row * 2 * dim + dim + i, run_load<N>(b + row * dim + i));
    }
};

template <typename T> struct ColumnsSplit {
    T *a, *b;
    const T *in;
    int64_t dim;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t i) const {
        run_store(a + row * dim + i, run_load<N>(in + row * 2 * dim + i));
        run_store(b + row * dim + i, run_load<N>(in + row * 2 * dim + dim + i));
    }
};

} // namespace

extern "C" void cuda_sinusoid(const struct Backend *be, float *out, const double *host_t,
                              int64_t batch, int64_t dim) {
    for (int64_t first = 0; first < batch; first += TIMES_PER_LAUNCH) {
        Sinusoid sinusoid = {out + first * dim, dim / 2, {}};
        int64_t n = std::min<int64_t>(batch - first, TIMES_PER_LAUNCH);
        for (int64_t b = 0; b < n; b++) sinusoid.t[b] = host_t[first + b];
        each(be, false, n, dim / 2, sinusoid);
    }
}

extern "C" void cuda_silu_forward(const struct Backend *be, float *y, const float *x,
                                  int64_t n_elems) {
    map(be, n_elems, Silu{}, y, x);
}

extern "C" void cuda_silu_backward(const struct Backend *be, float *dx, const float *dy,
                                   const float *x, int64_t n_elems, bool accumulate) {
    if (accumulate)
        map(be, n_elems, SiluGradient{}, dx, dy, x, dx);
    else
        map(be, n_elems, SiluGradient{}, dx, dy, x);
}

extern "C" void cuda_add_f32(const struct Backend *be, float *out, const float *a, const float *b,
                             int64_t n_elems) {
    map(be, n_elems, Sum{}, out, a, b);
}

extern "C" void cuda_rows_add(const struct Backend *be, float *out, const float *in,
                              int64_t in_stride, const float *row, int64_t batch, int64_t n_elems) {
    bool wide = runs_fit(batch, in_stride, in) && runs_fit(batch, n_elems, out, row);
    each(be, wide, 1, n_elems, RowsAdd{out, in, row, in_stride, batch, n_elems});
}

extern "C" void cuda_rows_add_backward(const struct Backend *be, float *din, int64_t din_stride,
                                       float *drow, const float *dout, int64_t batch,
                                       int64_t n_elems) {
    bool wide = runs_fit(batch, din_stride, din) && runs_fit(batch, n_elems, dout, drow);
    each(be, wide, 1, n_elems, RowsAddGradient{din, din_stride, drow, dout, batch, n_elems});
}

extern "C" void cuda_act_from_f32(const struct Backend *be, Act *y, const float *x,
                                  int64_t n_elems) {
    with_act_type(be, [&](auto *type) { map(be, n_elems, Identity{}, (ACT_TYPE(type) *)y, x); });
}

extern "C" void cuda_act_to_f32(const struct Backend *be, float *y, const Act *x, int64_t n_elems) {
    with_act_type(be, [&](auto *type) { map(be, n_elems, Identity{}, y, (ACT_TYPE(type) *)x); });
}

extern "C" void cuda_act_add(const struct Backend *be, Act *out, const Act *a, const Act *b,
                             int64_t n_elems) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        map(be, n_elems, Sum{}, (T *)out, (T *)a, (T *)b);
    });
}

extern "C" void cuda_mix_forward(const struct Backend *be, Act *out, const Act *m, const Act *h,
                                 const float *logit, int64_t n_elems) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        map(be, n_elems, Mix{logit}, (T *)out, (T *)m, (T *)h);
    });
}

extern "C" void cuda_mix_backward(const struct Backend *be, Act *dm, Act *dh, float *dlogit,
                                  const Act *dout, const Act *m, const Act *h, const float *logit,
                                  int64_t n_elems) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        MixGradient<T> gradient = {(T *)dm, (T *)dh, (T *)dout, (T *)m, (T *)h, logit};
        bool wide =
            runs_fit(1, n_elems, gradient.dm, gradient.dh, gradient.dout, gradient.m, gradient.h);
        if (dlogit)
            row_sums(be, wide, 1, n_elems, gradient, AddLogitGradient{dlogit, logit});
        else
            each(be, wide, 1, n_elems, gradient);
    });
}

extern "C" void cuda_columns_join(const struct Backend *be, Act *out, const Act *a, const Act *b,
                                  int64_t rows, int64_t dim) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        ColumnsJoin<T> join = {(T *)out, (T *)a, (T *)b, dim};
        each(be, runs_fit(2 * rows, dim, join.out, join.a, join.b), rows, dim, join);
    });
}

extern "C" void cuda_columns_split(const struct Backend *be, Act *a, Act *b, const Act *in,
                                   int64_t rows, int64_t dim) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        ColumnsSplit<T> split = {(T *)a, (T *)b, (T *)in, dim};
        each(be, runs_fit(2 * rows, dim, split.a, split.b, split.in), rows, dim, split);
    });
}
