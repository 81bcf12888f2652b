/* What stands between the discriminator's convolutions: group norm with leaky ReLU, mean pooling,
 * and the leaky ReLU of its MLP.
 *
 * With xhat = (x - mean) rstd, z = xhat w + b, dz = dy (1 or slope), and means over the group:
 *     dx = rstd (g - mean(g) - xhat mean(g xhat)),  g = dz w
 *     dw = sum dz xhat,  db = sum dz over samples and positions.
 *
 * Forward reads x for the sums of the groups, which are runs of consecutive elements, and again for
 * y; backward reads x and dy for the sums of the planes (one channel of one sample), of which both
 * the groups' means and the parameters' gradients are made, and again for dx.  The second reading
 * comes mostly from the second-level cache.
 *
 * The variance is mean(x^2) - mean^2 in float64.  Its error is 2^-53 (mean / deviation)^2, always
 * less than what rounding x to float32 or bfloat16 has already done to the deviation. */
#include "kernels/cuda/row_sums.cuh"

namespace {

/* ---- group norm */

/* Sums of x and of x^2 over a group. */
template <typename T> struct Moments {
    const T *x;
    int64_t n_elems;

    template <int N> __device__ __forceinline__ Two<double> at(int64_t group, int64_t i) const {
        Run<N> xs = run_load<N>(x + group * n_elems + i);
        Two<double> sum(0.0);
        for (float e : xs.at) sum += Two<double>(e, (double)e * e);
        return sum;
    }
};

struct Statistics {
    float *mean, *rstd, eps;
    int64_t n_elems;

    __device__ void operator()(int64_t group, Two<double> sum) const {
        double mu = sum.first / (double)n_elems, variance = sum.second / (double)n_elems - mu * mu;
        if (variance < 0.0) variance = 0.0; /* by rounding; NaN stays */
        mean[group] = (float)mu;
        rstd[group] = (float)(1.0 / sqrt(variance + (double)eps));
    }
};

/* The norm of one plane. */
struct Plane {
    float mean, rstd, w, b, slope;

    __device__ __forceinline__ float norm(float x) const {
        return (x - mean) * rstd;
    }
    __device__ __forceinline__ float y(float x) const {
        float z = norm(x) * w + b;
        return z > 0.0f ? z : slope * z;
    }
    __device__ __forceinline__ float dz(float dy, float xhat) const {
        return xhat * w + b > 0.0f ? dy : slope * dy;
    }
};

struct Norms {
    const float *mean, *rstd, *w, *b;
    GroupNormShape shape;

    /* a launch has fewer than 2^31 planes, and long divisions would take longer than the memory */
    __device__ __forceinline__ int channel_of(int64_t plane) const {
        return (int)plane % (int)shape.channels;
    }
    __device__ __forceinline__ int group_of(int64_t plane) const {
        return (int)plane / width();
    }
    __host__ __device__ __forceinline__ int width() const { /* channels of a group */
        return (int)shape.channels / (int)shape.groups;
    }
    __device__ __forceinline__ Plane of(int64_t plane) const {
        int group = group_of(plane), channel = channel_of(plane);
        return {mean[group], rstd[group], w[channel], b[channel], shape.slope};
    }
};

template <typename T> struct NormForward {
    T *y;
    const T *x;
    Norms norms;

    template <int N> __device__ __forceinline__ void at(int64_t plane, int64_t i) const {
        int64_t first = plane * norms.shape.positions + i;
        Plane p = norms.of(plane);
        Run<N> run = run_load<N>(x + first);
        for (float &e : run.at) e = p.y(e);
        run_store(y + first, run);
    }
};

/* Sums of dz and dz xhat over a plane. */
template <typename T> struct PlaneGradients {
    const T *dy, *x;
    Norms norms;

    template <int N> __device__ __forceinline__ Two<double> at(int64_t plane, int64_t i) const {
        int64_t first = plane * norms.shape.positions + i;
        Plane p = norms.of(plane);
        Run<N> xs = run_load<N>(x + first), dys = run_load<N>(dy + first);
        Two<double> sum(0.0);
        for (int k = 0; k < N; k++) {
            float xhat = p.norm(xs.at[k]), dz = p.dz(dys.at[k], xhat);
            sum += Two<double>(dz, dz * xhat);
        }
        return sum;
    }
};

struct StorePlane {
    Two<double> *sums;

    __device__ void operator()(int64_t plane, Two<double> sum) const {
        sums[plane] = sum;
    }
};

/* dw, db of one channel from its planes; a row is a channel. */
struct ParamGradients {
    float *dw, *db;
    const Two<double> *plane_sums;
    GroupNormShape shape;

    template <int N> __device__ __forceinline__ void at(int64_t, int64_t channel) const {
        Two<double> sum(0.0);
        for (int64_t b = 0; b < shape.batch; b++) sum += plane_sums[b * shape.channels + channel];
        if (dw) dw[channel] += (float)sum.second;
        if (db) db[channel] += (float)sum.first;
    }
};

/* Means of g and g xhat over a group, from its planes. */
struct GroupMeans {
    Two<float> *means;
    const Two<double> *plane_sums;
    Norms norms;

    template <int N> __device__ __forceinline__ void at(int64_t, int64_t group) const {
        Two<double> sum(0.0);
        for (int i = 0; i < norms.width(); i++) {
            int64_t plane = group * norms.width() + i;
            double w = norms.w[norms.channel_of(plane)];
            sum += Two<double>(w * plane_sums[plane].first, w * plane_sums[plane].second);
        }
        double n = (double)(norms.width() * norms.shape.positions);
        means[group] = Two<float>((float)(sum.first / n), (float)(sum.second / n));
    }
};

template <typename T> struct NormBackward {
    T *dx;
    const T *dy, *x;
    const Two<float> *means;
    Norms norms;

    template <int N> __device__ __forceinline__ void at(int64_t plane, int64_t i) const {
        int64_t first = plane * norms.shape.positions + i;
        Plane p = norms.of(plane);
        Two<float> mean = means[norms.group_of(plane)];
        Run<N> xs = run_load<N>(x + first), run = run_load<N>(dy + first);
        for (int k = 0; k < N; k++) {
            float xhat = p.norm(xs.at[k]), g = p.dz(run.at[k], xhat) * p.w;
            run.at[k] = p.rstd * (g - mean.first - xhat * mean.second);
        }
        run_store(dx + first, run);
    }
};

/* ---- pooling */

template <typename T> struct Values {
    const T *x;
    int64_t positions;

    template <int N> __device__ __forceinline__ double at(int64_t plane, int64_t i) const {
        Run<N> xs = run_load<N>(x + plane * positions + i);
        double sum = 0.0;
        for (float e : xs.at) sum += e;
        return sum;
    }
};

struct StoreMean {
    float *y;
    int64_t positions;

    __device__ void operator()(int64_t plane, double sum) const {
        y[plane] = (float)(sum / (double)positions);
    }
};

template <typename T> struct Shares {
    T *dx;
    const float *dy;
    int64_t positions;

    template <int N> __device__ __forceinline__ void at(int64_t plane, int64_t i) const {
        Run<N> run;
        for (float &e : run.at) e = (float)((double)dy[plane] / (double)positions);
        run_store(dx + plane * positions + i, run);
    }
};

/* ---- the MLP's activation */

struct Leaky {
    float slope;
    __device__ __forceinline__ float operator()(float x) const {
        return x > 0.0f ? x : slope * x;
    }
    __device__ __forceinline__ float operator()(float dy, float x) const {
        return x > 0.0f ? dy : slope * dy;
    }
};

} // namespace

void cuda_group_norm_leaky_forward(const struct Backend *be, Act *y, float *mean, float *rstd,
                                   const Act *x, const float *w, const float *b, GroupNormShape s) {
    int64_t planes = s.batch * s.channels, groups = s.batch * s.groups;
    Norms norms = {mean, rstd, w, b, s};
    int64_t group_elems = norms.width() * s.positions;
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        NormForward<T> forward = {(T *)y, (const T *)x, norms};
        row_sums(be, runs_fit(groups, group_elems, forward.x), groups, group_elems,
                 Moments<T>{forward.x, group_elems}, Statistics{mean, rstd, s.eps, group_elems});
        each(be, runs_fit(planes, s.positions, forward.y, forward.x), planes, s.positions, forward);
    });
}

void cuda_group_norm_leaky_backward(const struct Backend *be, Act *dx, float *dw, float *db,
                                    const Act *dy, const Act *x, const float *mean,
                                    const float *rstd, const float *w, const float *b,
                                    GroupNormShape s) {
    int64_t planes = s.batch * s.channels, groups = s.batch * s.groups;
    Norms norms = {mean, rstd, w, b, s};
    int64_t kept_bytes = planes * (int64_t)(sizeof(Two<double>) + sizeof(Two<float>));
    kept_bytes += kept_bytes % 16;
    auto *plane_sums = (Two<double> *)cuda_workspace(be, kept_bytes);
    auto *means = (Two<float> *)(plane_sums + planes);
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        NormBackward<T> backward = {(T *)dx, (const T *)dy, (const T *)x, means, norms};
        bool wide = runs_fit(planes, s.positions, backward.dy, backward.x);
        row_sums(be, wide, planes, s.positions, PlaneGradients<T>{backward.dy, backward.x, norms},
                 StorePlane{plane_sums}, kept_bytes);
        if (dw || db) each(be, false, 1, s.channels, ParamGradients{dw, db, plane_sums, s});
        if (!dx) return;
        each(be, false, 1, groups, GroupMeans{means, plane_sums, norms});
        each(be, wide && runs_fit(planes, s.positions, backward.dx), planes, s.positions, backward);
    });
}

void cuda_mean_pool_forward(const struct Backend *be, float *y, const Act *x, int64_t batch,
                            int64_t channels, int64_t positions) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        Values<T> values = {(const T *)x, positions};
        row_sums(be, runs_fit(batch * channels, positions, values.x), batch * channels, positions,
                 values, StoreMean{y, positions});
    });
}

void cuda_mean_pool_backward(const struct Backend *be, Act *dx, const float *dy, int64_t batch,
                             int64_t channels, int64_t positions) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        Shares<T> shares = {(T *)dx, dy, positions};
        each(be, runs_fit(batch * channels, positions, shares.dx), batch * channels, positions,
             shares);
    });
}

void cuda_leaky_relu_forward(const struct Backend *be, float *y, const float *x, float slope,
                             int64_t n_elems) {
    map(be, n_elems, Leaky{slope}, y, x);
}

void cuda_leaky_relu_backward(const struct Backend *be, float *dx, const float *dy, const float *x,
                              float slope, int64_t n_elems) {
    map(be, n_elems, Leaky{slope}, dx, dy, x);
}
