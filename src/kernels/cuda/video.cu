/* Noise and linear combinations of latent videos in float32: each element read and written once. */
#include <algorithm>

#include "kernels/cuda/elementwise.cuh"
#include "philox.h"

namespace {

/* ---- noise */

/* The four normals of one Philox block, by Box and Muller's transform: words 0 and 1 give the first
 * two, words 2 and 3 the others.  The same numbers as the CPU's, to the rounding of log, sine and
 * cosine. */
__device__ __forceinline__ void normals_of_block(float out[4], uint64_t seed, uint64_t stream,
                                                 uint32_t block, uint32_t sample) {
    struct Philox bits = philox(seed, block, sample, (uint32_t)stream, (uint32_t)(stream >> 32));
    for (int pair = 0; pair < 4; pair += 2) {
        float u = (float)philox_uniform(bits.word[pair]);
        float turns = (float)philox_uniform(bits.word[pair + 1]);
        float radius = sqrtf(-2.0f * logf(u)), sine, cosine;
        sincospif(2.0f * turns, &sine, &cosine);
        out[pair] = radius * cosine;
        out[pair + 1] = radius * sine;
    }
}

struct NormalFill {
    float *out;
    uint64_t seed, stream;
    int64_t first_sample, n_per_sample;

    template <int N> __device__ __forceinline__ void at(int64_t b, int64_t i) const {
        float normals[N < 4 ? 4 : N];
        for (int k = 0; k < N; k += 4)
            normals_of_block(normals + k, seed, stream, (uint32_t)((i + k) / 4),
                             (uint32_t)(first_sample + b));
        Run<N> run;
        for (int k = 0; k < N; k++) run.at[k] = N < 4 ? normals[i % 4] : normals[k];
        run_store(out + b * n_per_sample + i, run);
    }
};

/* ---- combinations */

/* Host arrays travel as kernel arguments, which may have 4 KB. */
enum { SAMPLES_PER_LAUNCH = 128 };

template <int TERMS> struct Combine {
    float *out;
    const float *in[TERMS];
    int64_t n_per_sample;
    float coef[TERMS][SAMPLES_PER_LAUNCH];

    template <int N> __device__ __forceinline__ void at(int64_t b, int64_t i) const {
        int64_t at = b * n_per_sample + i;
        Run<N> sum = {};
        for (int term = 0; term < TERMS; term++) {
            Run<N> x = run_load<N>(in[term] + at);
            for (int k = 0; k < N; k++) sum.at[k] += coef[term][b] * x.at[k];
        }
        run_store(out + at, sum);
    }
};

template <int TERMS>
void combine_terms(const struct Backend *be, float *out, const float *const *in,
                   const double *host_coef, int64_t batch, int64_t n_per_sample) {
    bool wide = runs_fit(batch, n_per_sample, out);
    for (int term = 0; term < TERMS; term++) wide = wide && runs_fit(batch, n_per_sample, in[term]);
    for (int64_t first = 0; first < batch; first += SAMPLES_PER_LAUNCH) {
        int64_t n = std::min<int64_t>(batch - first, SAMPLES_PER_LAUNCH);
        Combine<TERMS> combine = {out + first * n_per_sample, {}, n_per_sample, {}};
        for (int term = 0; term < TERMS; term++) {
            combine.in[term] = in[term] + first * n_per_sample;
            for (int64_t b = 0; b < n; b++)
                combine.coef[term][b] = (float)host_coef[term * batch + first + b];
        }
        each(be, wide, n, n_per_sample, combine);
    }
}

} // namespace

extern "C" void cuda_normal_fill(const struct Backend *be, float *out, uint64_t seed,
                                 uint64_t stream, int64_t first_sample, int64_t batch,
                                 int64_t n_per_sample) {
    each(be, runs_fit(batch, n_per_sample, out), batch, n_per_sample,
         NormalFill{out, seed, stream, first_sample, n_per_sample});
}

extern "C" void cuda_combine(const struct Backend *be, float *out, int n_terms,
                             const float *const *in, const double *host_coef, int64_t batch,
                             int64_t n_per_sample) {
    TMD_CHECK(n_terms >= 1 && n_terms <= COMBINE_MAX_TERMS, "%d terms", n_terms);
    decltype(&combine_terms<1>) by_terms[COMBINE_MAX_TERMS] = {combine_terms<1>, combine_terms<2>,
                                                               combine_terms<3>, combine_terms<4>};
    by_terms[n_terms - 1](be, out, in, host_coef, batch, n_per_sample);
}
