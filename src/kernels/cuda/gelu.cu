/* GELU, tanh approximation, and the way back through it; with z = pre:
 *
 *     gelu(z) = z/2 (1 + tanh(u)) = z s,      u = sqrt(2/pi) (z + 0.044715 z^3),  s = sigmoid(2u)
 *     gelu'(z) = s + z s (1 - s) d(2u)/dz
 *
 * The sigmoid loses no digits where 1 + tanh(u) cancels.  Forward reads pre and writes y; backward
 * reads pre and d and writes d. */
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/gemm_epilogue.h"

/* 2 sqrt(2/pi) and the cubic term's weight. */
#define GELU_SCALE 1.5957691216f
#define GELU_CUBIC 0.044715f

static __device__ __forceinline__ float gelu_sigmoid(float z) {
    return 1.0f / (1.0f + expf(-GELU_SCALE * (z + GELU_CUBIC * z * z * z)));
}

struct Gelu {
    __device__ __forceinline__ float operator()(float z) const {
        return z * gelu_sigmoid(z);
    }
};

struct GeluGrad {
    __device__ __forceinline__ float operator()(float d, float z) const {
        float s = gelu_sigmoid(z);
        return d * (s + z * s * (1.0f - s) * GELU_SCALE * (1.0f + 3.0f * GELU_CUBIC * z * z));
    }
};

void cuda_gelu(const struct Backend *be, Act *y, const Act *pre, int64_t n_elems) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        map(be, n_elems, Gelu{}, (T *)y, (const T *)pre);
    });
}

void cuda_gelu_grad(const struct Backend *be, Act *d, const Act *pre, int64_t n_elems) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        map(be, n_elems, GeluGrad{}, (T *)d, (const T *)d, (const T *)pre);
    });
}
