/* What CUDA adds to C++ inside kernels, as far as ours use it: qualifiers, the built-in variables,
 * barriers, warp operations, vectors and device mathematics.
 *
 * The threads of a block are fibers of one host thread: a thread runs until it ends, or until it
 * waits here for others.  So the built-in variables are plain globals that the scheduler sets. */
#ifndef TMD_EMULATED_KERNEL_LANGUAGE_H
#define TMD_EMULATED_KERNEL_LANGUAGE_H

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
    unsigned int x, y, z;
};
struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
        : x(x_), y(y_), z(z_) {
    }
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

/* ---- waiting for others.  File and line are the caller's, for messages and for telling barriers
 * apart: all threads of a block must wait at the same one. */

extern "C" {
/* Ends the program with a message (emulation.h). */
void emu_reject(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

void emu_wait_block(const char *file, int line);

/* Waits until every lane of `mask` calls this with the same `operation` and mask; returns the 32
 * values that the lanes gave. */
const uint64_t *emu_wait_warp(const char *operation, unsigned int mask, uint64_t value,
                              const char *file, int line);

/* Which lane of its warp the calling thread is. */
int emu_lane(void);

/* Ends the program: lane `lane` does not take part in a warp operation that reads its value. */
void emu_require_lane(const char *operation, unsigned int mask, int lane, const char *file,
                      int line);
}

#define EMU_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMU_CALLER) {
    emu_wait_block(file, line);
}
inline void __syncwarp(unsigned int mask = ~0u, EMU_CALLER) {
    emu_wait_warp("__syncwarp", mask, 0, file, line);
}
inline unsigned int __ballot_sync(unsigned int mask, int predicate, EMU_CALLER) {
    const uint64_t *values = emu_wait_warp("__ballot_sync", mask, predicate != 0, file, line);
    unsigned int ballot = 0;
    for (int lane = 0; lane < warpSize; lane++)
        if (mask >> lane & 1) ballot |= (unsigned int)values[lane] << lane;
    return ballot;
}
inline int __any_sync(unsigned int mask, int predicate, EMU_CALLER) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned int mask, int predicate, EMU_CALLER) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}

/* Gives `value`, and takes that of the lane `source` of the warp. */
template <typename T>
inline T emu_shuffle(const char *operation, unsigned int mask, T value, int source,
                     const char *file, int line) {
    static_assert(std::is_arithmetic_v<T>, "shuffles move numbers");
    uint64_t given = 0, taken;
    memcpy(&given, &value, sizeof value);
    taken = emu_wait_warp(operation, mask, given, file, line)[source];
    emu_require_lane(operation, mask, source, file, line);
    memcpy(&value, &taken, sizeof value);
    return value;
}
/* A lane whose source lies outside its segment of `width` lanes keeps its own value. */
template <typename T>
inline T __shfl_sync(unsigned int mask, T value, int source, int width = warpSize, EMU_CALLER) {
    int first = emu_lane() / width * width;
    return emu_shuffle("__shfl_sync", mask, value, first + (source & (width - 1)), file, line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned int mask, T value, int bits, int width = warpSize, EMU_CALLER) {
    int lane = emu_lane(), source = lane ^ bits;
    bool inside = source < (lane / width + 1) * width;
    return emu_shuffle("__shfl_xor_sync", mask, value, inside ? source : lane, file, line);
}
template <typename T>
inline T __shfl_down_sync(unsigned int mask, T value, unsigned int by, int width = warpSize,
                          EMU_CALLER) {
    int lane = emu_lane();
    bool inside = (unsigned int)(lane % width) + by < (unsigned int)width;
    return emu_shuffle("__shfl_down_sync", mask, value, inside ? lane + (int)by : lane, file, line);
}
template <typename T>
inline T __shfl_up_sync(unsigned int mask, T value, unsigned int by, int width = warpSize,
                        EMU_CALLER) {
    int lane = emu_lane();
    bool inside = (unsigned int)(lane % width) >= by;
    return emu_shuffle("__shfl_up_sync", mask, value, inside ? lane - (int)by : lane, file, line);
}
#undef EMU_CALLER

/* ---- vectors, aligned as on the device */

#define EMU_VECTORS(type, name, pair_bytes, quad_bytes)                                            \
    struct alignas(pair_bytes) name##2 {                                                           \
        type x, y;                                                                                 \
    };                                                                                             \
    struct alignas(quad_bytes) name##4 {                                                           \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    inline name##2 make_##name##2(type x, type y) {                                                \
        return {x, y};                                                                             \
    }                                                                                              \
    inline name##4 make_##name##4(type x, type y, type z, type w) {                                \
        return {x, y, z, w};                                                                       \
    }
EMU_VECTORS(float, float, 8, 16)
EMU_VECTORS(int, int, 8, 16)
EMU_VECTORS(unsigned int, uint, 8, 16)
EMU_VECTORS(unsigned short, ushort, 4, 8)
#undef EMU_VECTORS
struct alignas(16) double2 {
    double x, y;
};
inline double2 make_double2(double x, double y) {
    return {x, y};
}

/* ---- loads and stores with a cache hint */

template <typename T> inline T __ldg(const T *from) {
    return *from;
}
template <typename T> inline T __ldcg(const T *from) {
    return *from;
}
template <typename T> inline T __ldcs(const T *from) {
    return *from;
}
/* Bytes, whatever the type of what lies there: kernels store packs of floats as integers.  A real
 * device faults where the address is not a multiple of the vector. */
template <typename T> inline void emu_store(const char *operation, T *to, const T &value) {
    if (reinterpret_cast<uintptr_t>(to) % alignof(T) != 0)
        emu_reject("%s of %zu bytes to the misaligned address %p", operation, sizeof value,
                   (void *)to);
    memcpy((void *)to, &value, sizeof value);
}
template <typename T> inline void __stcg(T *to, T value) {
    emu_store("__stcg", to, value);
}
template <typename T> inline void __stcs(T *to, T value) {
    emu_store("__stcs", to, value);
}

/* ---- mathematics.  The fast variants (__expf) are exact here. */

using std::max;
using std::min;

inline float rsqrtf(float x) {
    return 1.0f / std::sqrt(x);
}
inline double rsqrt(double x) {
    return 1.0 / std::sqrt(x);
}
inline float __expf(float x) {
    return std::exp(x);
}
inline float __logf(float x) {
    return std::log(x);
}
inline float __sinf(float x) {
    return std::sin(x);
}
inline float __cosf(float x) {
    return std::cos(x);
}
/* sin(pi x) and cos(pi x), rounded once. */
inline void sincospif(float x, float *sine, float *cosine) {
    *sine = (float)std::sin(M_PI * (double)x);
    *cosine = (float)std::cos(M_PI * (double)x);
}
inline float __fdividef(float x, float y) {
    return x / y;
}
inline float __frcp_rn(float x) {
    return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
    return std::sqrt(x);
}
inline float __fmaf_rn(float x, float y, float z) {
    return std::fma(x, y, z);
}
/* One rounding each, never contracted to a multiply-add. */
__attribute__((noinline)) inline float __fmul_rn(float x, float y) {
    return x * y;
}
__attribute__((noinline)) inline float __fadd_rn(float x, float y) {
    return x + y;
}

template <typename To, typename From> inline To emu_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "bits of one width");
    To bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline unsigned int __float_as_uint(float x) {
    return emu_bits<unsigned int>(x);
}
inline float __uint_as_float(unsigned int bits) {
    return emu_bits<float>(bits);
}
inline int __float_as_int(float x) {
    return emu_bits<int>(x);
}
inline float __int_as_float(int bits) {
    return emu_bits<float>(bits);
}
inline int __popc(unsigned int x) {
    return __builtin_popcount(x);
}

#endif
