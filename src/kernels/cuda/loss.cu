/* Losses and their gradients: float32 in, float64 sums per sample (row_sums.cuh).
 *
 *     squares_sum     reads x
 *     adaptive_loss   reads u and target twice, the second time mostly from the cache, writes du
 *     vsd_direction   reads two of x_hat, g_fake, g_teacher, then all three, writes direction
 *     softplus_loss   a warp per sample, float64 throughout: a handful of logits */
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

struct Distance {
    const float *a, *b;
    int64_t n_per_sample;

    template <int N> __device__ __forceinline__ double at(int64_t sample, int64_t i) const {
        Run<N> as = run_load<N>(a + sample * n_per_sample + i);
        Run<N> bs = run_load<N>(b + sample * n_per_sample + i);
        double sum = 0.0;
        for (int k = 0; k < N; k++) sum += fabsf(as.at[k] - bs.at[k]);
        return sum;
    }
};

struct StoreNorm {
    double *norm, floor;
    __device__ void operator()(int64_t sample, double total) const {
        norm[sample] = total + floor;
    }
};

/* Writes G and sums <G, x_hat>. */
struct VsdDirection {
    float *direction;
    const float *x_hat, *g_fake, *g_teacher;
    const double *norm;
    int64_t n_per_sample;

    template <int N> __device__ __forceinline__ double at(int64_t sample, int64_t i) const {
        int64_t at = sample * n_per_sample + i;
        /* no difference, no direction */
        float inverse = norm[sample] == 0.0 ? 0.0f : (float)(1.0 / norm[sample]);
        Run<N> xs = run_load<N>(x_hat + at), gs = run_load<N>(g_fake + at);
        Run<N> teachers = run_load<N>(g_teacher + at);
        double sum = 0.0;
        for (int k = 0; k < N; k++) {
            gs.at[k] = (gs.at[k] - teachers.at[k]) * inverse;
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
                                   const float *x_hat, const float *g_fake, const float *g_teacher,
                                   enum VsdNorm norm, int64_t batch, int64_t n_per_sample) {
    bool wide = runs_fit(batch, n_per_sample, direction, x_hat, g_fake, g_teacher);
    const float *minuend = norm == VSD_NORM_PAPER ? g_fake : x_hat;
    double floor = norm == VSD_NORM_PAPER ? 0.0 : 1e-6 * (double)n_per_sample;
    double *norms = loss; /* until the losses take their place */
    row_sums(be, wide, batch, n_per_sample, Distance{minuend, g_teacher, n_per_sample},
             StoreNorm{norms, floor});
    row_sums(be, wide, batch, n_per_sample,
             VsdDirection{direction, x_hat, g_fake, g_teacher, norms, n_per_sample},
             StoreTotal{loss});
}

extern "C" void cuda_softplus_loss(const struct Backend *be, double *loss, float *dx,
                                   const float *x, double sign, double scale, int64_t batch,
                                   int64_t n_logits) {
    if (batch == 0) return;
    CUDA_LAUNCH(be, (softplus_kernel), (unsigned int)batch, WARP, 0, loss, dx, x, sign, scale,
                n_logits);
}
