/* What kernels share: element types, 16-byte packs of them, sums over warps and blocks, and the choice
 * of a kernel by the backend's Act. */
#ifndef TMD_KERNEL_CUH
#define TMD_KERNEL_CUH

#include <cstring>
#include <type_traits>

#include <cuda_bf16.h>

#include "launch.h"

enum { WARP = 32, FULL_WARP_BLOCK = 256 };

__device__ __forceinline__ float to_f32(float x) {
    return x;
}
__device__ __forceinline__ float to_f32(__nv_bfloat16 x) {
    return __bfloat162float(x);
}
template <typename T> __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) {
    return x;
}
template <> __device__ __forceinline__ __nv_bfloat16 from_f32<__nv_bfloat16>(float x) {
    return __float2bfloat16(x); /* to nearest even */
}

/* One 16-byte access: 4 floats or 8 bfloat16.  The address must be a multiple of 16. */
template <typename T> struct alignas(16) Pack {
    enum { WIDTH = 16 / sizeof(T) };
    T elems[WIDTH];
};
template <typename T> __device__ __forceinline__ Pack<T> pack_load(const T *from) {
    return *reinterpret_cast<const Pack<T> *>(from);
}
/* 16 bytes of any kind, to global memory only.  Such a store has to be asked for by name: nvcc 13
 * splits an assignment into single elements where it finds the address too clever. */
template <typename Bytes>
__device__ __forceinline__ void store_16_bytes(void *to, const Bytes &from) {
    uint4 bits;
    static_assert(sizeof bits == sizeof from, "one access");
    memcpy(&bits, &from, sizeof bits);
    __stcg(static_cast<uint4 *>(to), bits);
}
template <typename T> __device__ __forceinline__ void pack_store(T *to, const Pack<T> &pack) {
    store_16_bytes(to, pack);
}
/* Whether rows `stride` apart from `base` on, of n elements each, can be read in packs. */
template <typename T> inline bool packs_fit(const T *base, int64_t stride, int64_t n) {
    return reinterpret_cast<uintptr_t>(base) % 16 == 0 && stride % Pack<T>::WIDTH == 0 &&
           n % Pack<T>::WIDTH == 0;
}

/* The sum over a warp, on every lane. */
template <typename F> __device__ __forceinline__ F warp_sum(F x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
    return x;
}

/* Two sums made at once. */
template <typename F> struct Two {
    F first, second;
    Two() = default;
    __host__ __device__ explicit Two(F both) : first(both), second(both) {}
    __host__ __device__ Two(F a, F b) : first(a), second(b) {}
    __device__ __forceinline__ Two &operator+=(const Two &x) {
        first += x.first;
        second += x.second;
        return *this;
    }
};
template <typename F> __device__ __forceinline__ Two<F> warp_sum(Two<F> x) {
    return Two<F>(warp_sum(x.first), warp_sum(x.second));
}

/* The sum over a block of whole warps, on every thread.  `partial`: shared, one element per warp;
 * the block may use it again at once. */
template <typename F> __device__ __forceinline__ F block_sum(F x, F *partial) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    x = F(0);
    for (int i = 0; i < n_warps; i++) x += partial[i];
    __syncthreads();
    return x;
}

/* Blocks of n_threads that cover n_elems, at most `limit` of them: for loops that stride by the grid. */
static inline unsigned int blocks_for(int64_t n_elems, int64_t n_threads, int64_t limit) {
    int64_t n = (n_elems + n_threads - 1) / n_threads;
    return (unsigned int)(n < 1 ? 1 : n < limit ? n : limit);
}

/* Calls f(T *) with a null pointer of the type that an Act is:
 *     with_act_type(be, [&](auto *type) { using T = std::remove_pointer_t<decltype(type)>; ... }) */
template <typename F> inline void with_act_type(const struct Backend *be, F f) {
    if (be->act_dtype == DTYPE_F32)
        f(static_cast<float *>(nullptr));
    else
        f(static_cast<__nv_bfloat16 *>(nullptr));
}
#define ACT_TYPE(type) std::remove_pointer_t<decltype(type)>

#endif
