/* The optimizer's passes: reads and writes at the memory's speed, one pass each.
 *
 *     norm_squared   reads 4 bytes per element (row_sums.cuh)
 *     adamw          reads w, m, v, g: 16 bytes; writes w, m, v (12) and the weights as Act
 *     ema_update     reads 8 bytes and writes 4
 *     scale_f32      reads 4 bytes and writes 4
 *     weights_cast   reads 4 bytes and writes an Act
 *
 * AdamW's factors are float64 on the host and float32 in the loop, as on the CPU. */
#include <math.h>

#include "kernels/cuda/elementwise.cuh"

extern "C" void cuda_norm_squared(const struct Backend *be, double *out, const float *x,
                                  int64_t n_elems) {
    cuda_squares_sum(be, out, x, 1, n_elems);
}

namespace {

template <typename T> struct AdamWStep {
    float *w;
    T *compute; /* NULL where w itself is what computes */
    float *m, *v;
    const float *g;
    float beta1, rest1, beta2, rest2, grad_scale, keep, rate, v_correction, eps;

    template <int N> __device__ __forceinline__ void at(int64_t, int64_t i) const {
        Run<N> gs = run_load<N>(g + i), ms = run_load<N>(m + i), vs = run_load<N>(v + i),
               ws = run_load<N>(w + i);
        for (int k = 0; k < N; k++) {
            float gi = gs.at[k] * grad_scale;
            ms.at[k] = beta1 * ms.at[k] + rest1 * gi;
            vs.at[k] = beta2 * vs.at[k] + rest2 * gi * gi;
            ws.at[k] = ws.at[k] * keep - rate * ms.at[k] / (sqrtf(vs.at[k] * v_correction) + eps);
        }
        run_store(m + i, ms);
        run_store(v + i, vs);
        run_store(w + i, ws);
        if (compute) run_store(compute + i, ws);
    }
};

struct MovingAverage {
    float keep, rest;
    __device__ __forceinline__ float operator()(float average, float x) const {
        return keep * average + rest * x;
    }
};

struct Scale {
    float factor;
    __device__ __forceinline__ float operator()(float x) const {
        return factor * x;
    }
};

template <typename T>
AdamWStep<T> adamw_step(float *w, T *compute, float *m, float *v, const float *g,
                        const struct AdamW &how) {
    AdamWStep<T> step = {};
    step.w = w, step.m = m, step.v = v, step.g = g;
    step.compute = (void *)compute == (void *)w ? nullptr : compute;
    step.beta1 = (float)how.beta1;
    step.rest1 = (float)(1.0 - how.beta1);
    step.beta2 = (float)how.beta2;
    step.rest2 = (float)(1.0 - how.beta2);
    step.grad_scale = (float)how.grad_scale;
    step.keep = (float)(1.0 - how.lr * how.weight_decay);
    step.rate = (float)(how.lr / (1.0 - pow(how.beta1, (double)how.step)));
    step.v_correction = (float)(1.0 / (1.0 - pow(how.beta2, (double)how.step)));
    step.eps = (float)how.eps;
    return step;
}

} // namespace

extern "C" void cuda_adamw(const struct Backend *be, float *w, Act *compute, float *m, float *v,
                           const float *g, struct AdamW how, int64_t n_elems) {
    with_act_type(be, [&](auto *type) {
        auto *weights = (ACT_TYPE(type) *)compute;
        each(be, runs_fit(1, n_elems, w, weights, m, v, g), 1, n_elems,
             adamw_step(w, weights, m, v, g, how));
    });
}

extern "C" void cuda_ema_update(const struct Backend *be, float *ema, const float *w, double decay,
                                int64_t n_elems) {
    MovingAverage average = {(float)decay, (float)(1.0 - decay)};
    map(be, n_elems, average, ema, ema, w);
}

extern "C" void cuda_scale_f32(const struct Backend *be, float *x, double factor, int64_t n_elems) {
    map(be, n_elems, Scale{(float)factor}, x, x);
}

extern "C" void cuda_weights_cast(const struct Backend *be, Act *compute, const float *w,
                                  int64_t n_elems) {
    if ((const void *)compute != w) cuda_act_from_f32(be, compute, w, n_elems);
}
