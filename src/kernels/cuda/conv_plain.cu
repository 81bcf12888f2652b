/* The convolution by its definition, for shapes that cuDNN refuses, and the gradient of the bias.
 *
 *     y[n,k,o]  = b[k] + sum over c, t of w[k,c,t] x[n,c, o stride + t - padding]
 *     dx[n,c,i] = sum over k, t of w[k,c,t] dy[n,k,o] for the o that reads i with tap t, if any
 *     dw[k,c,t] += sum over n, o of dy[n,k,o] x[n,c, o stride + t - padding]
 *     db[k]     += sum over n, o of dy[n,k,o]
 *
 * (o, i, t: frame, row, column.)  Nothing is kept in shared memory: a thread makes one element of y
 * or dx, a warp one of dw, a block one of db, each in an order of its own, so that the same input
 * gives the same bits.  Sums in float32. */
#include "kernels/cuda/conv3d.h"
#include "kernels/cuda/kernel.cuh"

namespace {

enum { MAX_BLOCKS = 1 << 16, N_WARPS = FULL_WARP_BLOCK / WARP };

__host__ __device__ __forceinline__ int64_t volume(const int64_t extent[3]) {
    return extent[0] * extent[1] * extent[2];
}

/* Takes the position apart that an index counts along rows, then columns. */
struct Position {
    int64_t at[3];
};
__device__ __forceinline__ Position position_of(int64_t index, const int64_t extent[3]) {
    return {{index / extent[2] / extent[1], index / extent[2] % extent[1], index % extent[2]}};
}
__device__ __forceinline__ int64_t index_of(const Position &p, const int64_t extent[3]) {
    return (p.at[0] * extent[1] + p.at[1]) * extent[2] + p.at[2];
}

/* Index of the input position that output position o reads with a tap; -1: padding. */
__device__ __forceinline__ int64_t input_read(const ConvShape &s, const Position &o,
                                              const Position &tap) {
    Position i;
    for (int d = 0; d < 3; d++) {
        i.at[d] = o.at[d] * s.stride[d] + tap.at[d] - s.padding[d];
        if (i.at[d] < 0 || i.at[d] >= s.in[d]) return -1;
    }
    return index_of(i, s.in);
}

/* Index of the output position that reads input position i with a tap; -1: none does. */
__device__ __forceinline__ int64_t output_reading(const ConvShape &s, const Position &i,
                                                  const Position &tap) {
    Position o;
    for (int d = 0; d < 3; d++) {
        int64_t steps = i.at[d] + s.padding[d] - tap.at[d];
        if (steps < 0 || steps % s.stride[d]) return -1;
        o.at[d] = steps / s.stride[d];
        if (o.at[d] >= s.out[d]) return -1;
    }
    return index_of(o, s.out);
}

template <typename T>
__global__ void __launch_bounds__(FULL_WARP_BLOCK)
    forward_kernel(T *y, const T *x, const T *w, const T *b, ConvShape s) {
    int64_t taps = volume(s.kernel), n_in = volume(s.in), n_out = volume(s.out);
    int64_t n_elems = s.batch * s.out_channels * n_out, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n_elems; i += step) {
        int64_t k = i / n_out % s.out_channels, n = i / n_out / s.out_channels;
        Position o = position_of(i % n_out, s.out);
        float sum = 0.0f;
        for (int64_t t = 0; t < taps; t++) {
            int64_t read = input_read(s, o, position_of(t, s.kernel));
            if (read < 0) continue;
            for (int64_t c = 0; c < s.in_channels; c++)
                sum += to_f32(w[(k * s.in_channels + c) * taps + t]) *
                       to_f32(x[(n * s.in_channels + c) * n_in + read]);
        }
        y[i] = from_f32<T>(sum + to_f32(b[k]));
    }
}

template <typename T>
__global__ void __launch_bounds__(FULL_WARP_BLOCK)
    backward_input_kernel(T *dx, const T *dy, const T *w, ConvShape s) {
    int64_t taps = volume(s.kernel), n_in = volume(s.in), n_out = volume(s.out);
    int64_t n_elems = s.batch * s.in_channels * n_in, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n_elems; i += step) {
        int64_t c = i / n_in % s.in_channels, n = i / n_in / s.in_channels;
        Position in = position_of(i % n_in, s.in);
        float sum = 0.0f;
        for (int64_t t = 0; t < taps; t++) {
            int64_t reader = output_reading(s, in, position_of(t, s.kernel));
            if (reader < 0) continue;
            for (int64_t k = 0; k < s.out_channels; k++)
                sum += to_f32(w[(k * s.in_channels + c) * taps + t]) *
                       to_f32(dy[(n * s.out_channels + k) * n_out + reader]);
        }
        dx[i] = from_f32<T>(sum);
    }
}

template <typename T>
__global__ void __launch_bounds__(FULL_WARP_BLOCK)
    backward_weight_kernel(float *dw, const T *x, const T *dy, ConvShape s) {
    int64_t taps = volume(s.kernel), n_in = volume(s.in), n_out = volume(s.out);
    int64_t n_elems = s.out_channels * s.in_channels * taps, step = (int64_t)gridDim.x * N_WARPS;
    int lane = threadIdx.x % WARP;
    for (int64_t i = (int64_t)blockIdx.x * N_WARPS + threadIdx.x / WARP; i < n_elems; i += step) {
        int64_t c = i / taps % s.in_channels, k = i / taps / s.in_channels;
        Position tap = position_of(i % taps, s.kernel);
        float sum = 0.0f;
        for (int64_t j = lane; j < s.batch * n_out; j += WARP) {
            int64_t n = j / n_out, o = j % n_out;
            int64_t read = input_read(s, position_of(o, s.out), tap);
            if (read >= 0)
                sum += to_f32(dy[(n * s.out_channels + k) * n_out + o]) *
                       to_f32(x[(n * s.in_channels + c) * n_in + read]);
        }
        sum = warp_sum(sum);
        if (lane == 0) dw[i] += sum;
    }
}

/* dy [batch, channels, positions]; a block per channel. */
template <typename T>
__global__ void __launch_bounds__(FULL_WARP_BLOCK)
    backward_bias_kernel(float *db, const T *dy, int64_t batch, int64_t positions, bool packed) {
    enum { WIDTH = Pack<T>::WIDTH };
    SHARED_ARRAY(float, partial, N_WARPS);
    float sum = 0.0f;
    for (int64_t n = 0; n < batch; n++) {
        const T *plane = dy + (n * gridDim.x + blockIdx.x) * positions;
        if (packed)
            for (int64_t i = threadIdx.x * WIDTH; i < positions; i += FULL_WARP_BLOCK * WIDTH) {
                Pack<T> pack = pack_load(plane + i);
                for (int j = 0; j < WIDTH; j++) sum += to_f32(pack.elems[j]);
            }
        else
            for (int64_t i = threadIdx.x; i < positions; i += FULL_WARP_BLOCK)
                sum += to_f32(plane[i]);
    }
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) db[blockIdx.x] += sum;
}

} // namespace

void cuda_conv_plain_forward(const struct Backend *be, Act *y, const Act *x, const Act *w,
                             const Act *b, const struct ConvShape *shape) {
    int64_t n_elems = shape->batch * shape->out_channels * volume(shape->out);
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        CUDA_LAUNCH(be, (forward_kernel<T>), blocks_for(n_elems, FULL_WARP_BLOCK, MAX_BLOCKS),
                    FULL_WARP_BLOCK, 0, reinterpret_cast<T *>(y), reinterpret_cast<const T *>(x),
                    reinterpret_cast<const T *>(w), reinterpret_cast<const T *>(b), *shape);
    });
}

void cuda_conv_plain_backward_input(const struct Backend *be, Act *dx, const Act *dy, const Act *w,
                                    const struct ConvShape *shape) {
    int64_t n_elems = shape->batch * shape->in_channels * volume(shape->in);
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        CUDA_LAUNCH(be, (backward_input_kernel<T>),
                    blocks_for(n_elems, FULL_WARP_BLOCK, MAX_BLOCKS), FULL_WARP_BLOCK, 0,
                    reinterpret_cast<T *>(dx), reinterpret_cast<const T *>(dy),
                    reinterpret_cast<const T *>(w), *shape);
    });
}

void cuda_conv_plain_backward_weight(const struct Backend *be, float *dw, const Act *x,
                                     const Act *dy, const struct ConvShape *shape) {
    int64_t n_elems = shape->out_channels * shape->in_channels * volume(shape->kernel);
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        CUDA_LAUNCH(be, (backward_weight_kernel<T>), blocks_for(n_elems, N_WARPS, MAX_BLOCKS),
                    FULL_WARP_BLOCK, 0, dw, reinterpret_cast<const T *>(x),
                    reinterpret_cast<const T *>(dy), *shape);
    });
}

void cuda_conv_backward_bias(const struct Backend *be, float *db, const Act *dy,
                             const struct ConvShape *shape) {
    int64_t positions = volume(shape->out);
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        const T *planes = reinterpret_cast<const T *>(dy);
        CUDA_LAUNCH(be, (backward_bias_kernel<T>), (unsigned int)shape->out_channels,
                    FULL_WARP_BLOCK, 0, db, planes, shape->batch, positions,
                    packs_fit(planes, positions, positions));
    });
}
