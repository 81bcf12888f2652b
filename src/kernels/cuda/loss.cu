/* Losses and their gradients: float32 in, float64 sums per sample (row_sums.cuh).
 *
 *     squares_sum     reads x
 *     adaptive_loss   reads u and target twice, the second time mostly from the cache, writes du
 *     vsd_direction   reads v_teacher and v_fake, or x_hat and eps, then both velocities and x_hat,
 *                     writes direction
 *     softplus_loss   a warp per sample, float64 throughout: a handful of logits */
#include <algorithm>

#include "kernels/cuda/row_sums.cuh"

namespace {

/* Where a total goes. */
struct StoreTotal {
    double *out;
    __device__ void operator()(int64_t row, double total) const {
        out[row] = total;
    }
};

struct Squares {
    const float *x;
    int64_t n_per_sample;

    template <int N> __device__ __forceinline__ double at(int64_t sample, int64_t i) const {
        Run<N> xs = run_load<N>(x + sample * n_per_sample + i);
        double sum = 0.0;
        for (int k = 0; k < N; k++) sum += (double)xs.at[k] * xs.at[k];
        return sum;
    }
};

struct SquaredDistance {
    const float *u, *target;
    int64_t n_per_sample;

    template <int N> __device__ __forceinline__ double at(int64_t sample, int64_t i) const {
        Run<N> us = run_load<N>(u + sample * n_per_sample + i);
        Run<N> targets = run_load<N>(target + sample * n_per_sample + i);
        double sum = 0.0;
        for (int k = 0; k < N; k++) {
            double difference = us.at[k] - targets.at[k];
            sum += difference * difference;
        }
        return sum;
    }
};

struct AdaptiveTotal {
    double *loss, *sq, c;
    __device__ void operator()(int64_t sample, double total) const {
        sq[sample] = total;
        loss[sample] = total / (total + c);
    }
};

/* du = 2 scale (u - target) / (sq + c) */
struct AdaptiveGradient {
    float *du;
    const float *u, *target;
    const double *sq;
    double c, scale;
    int64_t n_per_sample;

    template <int N> __device__ __forceinline__ void at(int64_t sample, int64_t i) const {
        float factor = (float)(2.0 * scale / (sq[sample] + c));
        Run<N> us = run_load<N>(u + sample * n_per_sample + i);
        Run<N> targets = run_load<N>(target + sample * n_per_sample + i);
        for (int k = 0; k < N; k++) us.at[k] = factor * (us.at[k] - targets.at[k]);
        run_store(du + sample * n_per_sample + i, us);
    }
};

/* A sample's norm without its factor t: |v_teacher - v_fake|_1 or |x_hat - eps + v_teacher|_1. */
struct VsdDistance {
    const float *x_hat, *eps, *v_fake, *v_teacher;
    enum VsdNorm norm;
    int64_t n_per_sample;

    template <int N> __device__ __forceinline__ double at(int64_t sample, int64_t i) const {
        int64_t at = sample * n_per_sample + i;
        Run<N> teachers = run_load<N>(v_teacher + at);
        double sum = 0.0;
        if (norm == VSD_NORM_PAPER) {
            Run<N> fakes = run_load<N>(v_fake + at);
            for (int k = 0; k < N; k++) sum += fabsf(teachers.at[k] - fakes.at[k]);
        } else {
            Run<N> xs = run_load<N>(x_hat + at), noises = run_load<N>(eps + at);
            for (int k = 0; k < N; k++) sum += fabsf(xs.at[k] - noises.at[k] + teachers.at[k]);
        }
        return sum;
    }
};

/* Host arrays travel as kernel arguments, which may have 4 KB. */
enum { TIMES_PER_LAUNCH = 256 };

/* Distances turn into t / norm. */
struct VsdFactor {
    double *distance, least;
    double t[TIMES_PER_LAUNCH];

    template <int N> __device__ __forceinline__ void at(int64_t, int64_t sample) const {
        for (int64_t b = sample; b < sample + N; b++) {
            double norm = t[b] * distance[b] + least;
            distance[b] = norm == 0.0 ? 0.0 : t[b] / norm; /* no difference, no direction */
        }
    }
};

/* Writes G and sums <G, x_hat>. */
struct VsdDirection {
    float *direction;
    const float *x_hat, *v_fake, *v_teacher;
    const double *factor;
    int64_t n_per_sample;

    template <int N> __device__ __forceinline__ double at(int64_t sample, int64_t i) const {
        int64_t at = sample * n_per_sample + i;
        Run<N> xs = run_load<N>(x_hat + at), fakes = run_load<N>(v_fake + at);
        Run<N> gs = run_load<N>(v_teacher + at);
        float scale = (float)factor[sample];
        double sum = 0.0;
        for (int k = 0; k < N; k++) {
            gs.at[k] = (gs.at[k] - fakes.at[k]) * scale;
            sum += (double)gs.at[k] * xs.at[k];
        }
        run_store(direction + at, gs);
        return sum;
    }
};

__global__ void __launch_bounds__(WARP)
    softplus_kernel(double *loss, float *dx, const float *x, double sign, double scale,
                    int64_t n_logits) {
    int64_t first = blockIdx.x * n_logits;
    double total = 0.0;
    for (int64_t k = threadIdx.x; k < n_logits; k += WARP) {
        double z = sign * x[first + k];
        total += z > 0.0 ? z + log1p(exp(-z)) : log1p(exp(z));
        if (dx) dx[first + k] = (float)(scale * sign / (1.0 + exp(-z)) / n_logits);
    }
    total = warp_sum(total);
    if (threadIdx.x == 0) loss[blockIdx.x] = total / n_logits;
}

} // namespace

extern "C" void cuda_squares_sum(const struct Backend *be, double *out, const float *x,
                                 int64_t batch, int64_t n_per_sample) {
    row_sums(be, runs_fit(batch, n_per_sample, x), batch, n_per_sample, Squares{x, n_per_sample},
             StoreTotal{out});
}

extern "C" void cuda_adaptive_loss(const struct Backend *be, double *loss, double *sq, float *du,
                                   const float *u, const float *target, double c, double scale,
                                   int64_t batch, int64_t n_per_sample) {
    bool wide = runs_fit(batch, n_per_sample, du, u, target);
    row_sums(be, wide, batch, n_per_sample, SquaredDistance{u, target, n_per_sample},
             AdaptiveTotal{loss, sq, c});
    each(be, wide, batch, n_per_sample,
         AdaptiveGradient{du, u, target, sq, c, scale, n_per_sample});
}

extern "C" void cuda_vsd_direction(const struct Backend *be, double *loss, float *direction,
                                   const float *x_hat, const float *eps, const float *v_fake,
                                   const float *v_teacher, const double *host_t, enum VsdNorm norm,
                                   int64_t batch, int64_t n_per_sample) {
    bool wide = runs_fit(batch, n_per_sample, direction, x_hat, eps, v_fake, v_teacher);
    double *factors = loss; /* until the losses take their place */
    row_sums(be, wide, batch, n_per_sample,
             VsdDistance{x_hat, eps, v_fake, v_teacher, norm, n_per_sample}, StoreTotal{factors});
    for (int64_t first = 0; first < batch; first += TIMES_PER_LAUNCH) {
        double least = norm == VSD_NORM_PAPER ? 0.0 : 1e-6 * (double)n_per_sample;
        int64_t n = std::min<int64_t>(batch - first, TIMES_PER_LAUNCH);
        VsdFactor factor = {factors + first, least, {}};
        std::copy_n(host_t + first, n, factor.t);
        each(be, false, 1, n, factor);
    }
    row_sums(be, wide, batch, n_per_sample,
             VsdDirection{direction, x_hat, v_fake, v_teacher, factors, n_per_sample},
             StoreTotal{loss});
}

extern "C" void cuda_softplus_loss(const struct Backend *be, double *loss, float *dx,
                                   const float *x, double sign, double scale, int64_t batch,
                                   int64_t n_logits) {
    if (batch == 0) return;
    CUDA_LAUNCH(be, (softplus_kernel), (unsigned int)batch, WARP, 0, loss, dx, x, sign, scale,
                n_logits);
}
