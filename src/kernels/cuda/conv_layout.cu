/* Between our layout of convolved tensors, a plane per channel, and that of the tensor-core
 * engines, channels last and padded with zeros.
 *
 * Both ways transpose a matrix per sample, [channels, positions] <-> [positions, channels]; a
 * weight is such a matrix per output channel, with the kernel's taps as positions.  A block moves a
 * tile of 64 x 64 elements through shared memory, so that both sides are accessed along their rows:
 * 16 bytes a thread where rows are aligned, an element a thread where they are not.  Every element
 * is read once and written once (and read before, where it is added to). */
#include "kernels/cuda/conv3d.h"
#include "kernels/cuda/kernel.cuh"

namespace {

enum { TILE = 64, MAX_BLOCKS = 1 << 16 };

/* One more word in each row of a tile, so that columns are spread over the banks. */
template <typename T> constexpr int TILE_STRIDE = TILE + 4 / sizeof(T);

/* W elements in one access: one, or what 16 bytes hold. */
template <typename T, int W> struct alignas(sizeof(T) * W) Group { T elems[W]; };
template <int W, typename T> __device__ __forceinline__ Group<T, W> group_load(const T *from) {
    return *reinterpret_cast<const Group<T, W> *>(from);
}
template <typename T, int W>
__device__ __forceinline__ void group_store(T *to, const Group<T, W> &group) {
    if constexpr (W == Pack<T>::WIDTH)
        store_16_bytes(to, group);
    else
        *reinterpret_cast<Group<T, W> *>(to) = group;
}

__host__ __device__ __forceinline__ int64_t tiles_over(int64_t extent) {
    return (extent + TILE - 1) / TILE;
}

/* out[c][r] = in[r][c] for every c < out_rows, r < out_cols; in is zero from `rows` on. */
struct Transpose {
    int64_t n_matrices;
    int64_t rows, cols, row_stride, matrix_stride;
    int64_t out_rows, out_cols, out_row_stride, out_matrix_stride;
};

/* A thread's groups are all under way before it waits for the first. */
template <int W, typename T>
__device__ __forceinline__ void tile_load(T *tile, const T *in, const Transpose &t, int64_t row0,
                                          int64_t col0) {
    enum { N_GROUPS = TILE * TILE / W / FULL_WARP_BLOCK };
    Group<T, W> groups[N_GROUPS] = {};
    int r = (int)threadIdx.x / (TILE / W), c = (int)threadIdx.x % (TILE / W) * W;
    int r_step = FULL_WARP_BLOCK * W / TILE;
    in += (row0 + r) * t.row_stride + col0 + c;
    for (int k = 0; k < N_GROUPS; k++)
        if (row0 + r + k * r_step < t.rows && col0 + c < t.cols)
            groups[k] = group_load<W>(in + k * r_step * t.row_stride);
    tile += r * TILE_STRIDE<T> + c;
    for (int k = 0; k < N_GROUPS; k++)
        for (int j = 0; j < W; j++) tile[k * r_step * TILE_STRIDE<T> + j] = groups[k].elems[j];
}

/* bias: [out_rows], or NULL. */
template <int W, bool ADD, typename To, typename From>
__device__ __forceinline__ void tile_store(To *out, const From *tile, const To *bias,
                                           const Transpose &t, int64_t row0, int64_t col0) {
    for (int i = threadIdx.x; i < TILE * TILE / W; i += FULL_WARP_BLOCK) {
        int c = i / (TILE / W), r = i % (TILE / W) * W;
        if (col0 + c >= t.out_rows || row0 + r >= t.out_cols) continue;
        To *at = out + (col0 + c) * t.out_row_stride + row0 + r;
        float shift = bias ? to_f32(bias[col0 + c]) : 0.0f;
        Group<To, W> group = {};
        if (ADD) group = group_load<W>(at);
        for (int j = 0; j < W; j++) {
            float before = ADD ? to_f32(group.elems[j]) : shift;
            float moved = to_f32(tile[(r + j) * TILE_STRIDE<From> + c]);
            group.elems[j] = from_f32<To>(before + moved);
        }
        group_store(at, group);
    }
}

template <bool ADD, typename To, typename From>
__global__ void __launch_bounds__(FULL_WARP_BLOCK)
    transpose_kernel(To *out, const From *in, const To *bias, Transpose t, bool pack_in,
                     bool pack_out) {
    SHARED_ARRAY(From, tile, TILE * TILE_STRIDE<From>);
    int64_t tiles_across = tiles_over(t.out_cols), tiles_down = tiles_over(t.out_rows);
    int64_t row0 = blockIdx.x % tiles_across * TILE;
    int64_t col0 = blockIdx.x / tiles_across % tiles_down * TILE;
    int64_t matrix = blockIdx.x / tiles_across / tiles_down;
    in += matrix * t.matrix_stride;
    out += matrix * t.out_matrix_stride;
    if (pack_in)
        tile_load<Pack<From>::WIDTH>(tile, in, t, row0, col0);
    else
        tile_load<1>(tile, in, t, row0, col0);
    __syncthreads();
    if (pack_out)
        tile_store<Pack<To>::WIDTH, ADD>(out, tile, bias, t, row0, col0);
    else
        tile_store<1, ADD>(out, tile, bias, t, row0, col0);
}

template <bool ADD, typename To, typename From>
void transpose(const struct Backend *be, To *out, const From *in, const To *bias,
               const Transpose &t) {
    int64_t n_tiles = t.n_matrices * tiles_over(t.out_cols) * tiles_over(t.out_rows);
    TMD_CHECK(n_tiles <= INT32_MAX, "%lld tiles", (long long)n_tiles);
    bool pack_in = packs_fit(in, t.row_stride, t.cols) && t.matrix_stride % Pack<From>::WIDTH == 0;
    bool pack_out =
        packs_fit(out, t.out_row_stride, t.out_cols) && t.out_matrix_stride % Pack<To>::WIDTH == 0;
    CUDA_LAUNCH(be, (transpose_kernel<ADD, To, From>), (unsigned int)n_tiles, FULL_WARP_BLOCK, 0,
                out, in, bias, t, pack_in, pack_out);
}

Transpose from_last(const struct ConvPlanes *l) {
    Transpose t;
    t.n_matrices = l->n;
    t.rows = t.out_cols = t.out_row_stride = l->positions;
    t.cols = t.row_stride = l->padded; /* what pads is read, too, where that fills a pack */
    t.matrix_stride = l->positions * l->padded;
    t.out_rows = l->channels;
    t.out_matrix_stride = l->all_channels * l->positions;
    return t;
}

/* Four elements a thread. */
template <typename T>
__global__ void __launch_bounds__(FULL_WARP_BLOCK)
    add_part_kernel(float *total, const T *part, int64_t n_elems, bool first) {
    int64_t step = 4 * (int64_t)gridDim.x * blockDim.x;
    int64_t begin = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    for (int64_t i = begin; i < n_elems; i += step) {
        Group<float, 4> sum = {};
        if (!first) sum = group_load<4>(total + i);
        Group<T, 4> more = group_load<4>(part + i);
        for (int j = 0; j < 4; j++) sum.elems[j] += to_f32(more.elems[j]);
        group_store(total + i, sum);
    }
}

} // namespace

void cuda_conv_to_last(const struct Backend *be, void *last, const Act *planes,
                       const struct ConvPlanes *layout) {
    Transpose t;
    t.n_matrices = layout->n;
    t.rows = layout->channels;
    t.cols = t.row_stride = t.out_rows = layout->positions;
    t.matrix_stride = layout->all_channels * layout->positions;
    t.out_cols = t.out_row_stride = layout->padded;
    t.out_matrix_stride = layout->positions * layout->padded;
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        transpose<false>(be, static_cast<T *>(last), reinterpret_cast<const T *>(planes),
                         static_cast<const T *>(nullptr), t);
    });
}

void cuda_conv_to_planes(const struct Backend *be, Act *planes, const void *last, enum Dtype type,
                         const Act *bias, const struct ConvPlanes *layout) {
    with_act_type(be, [&](auto *act) {
        using T = ACT_TYPE(act);
        T *out = reinterpret_cast<T *>(planes);
        const T *shift = reinterpret_cast<const T *>(bias);
        if (type == DTYPE_F32)
            transpose<false>(be, out, static_cast<const float *>(last), shift, from_last(layout));
        else
            transpose<false>(be, out, static_cast<const T *>(last), shift, from_last(layout));
    });
}

void cuda_conv_add_to_planes(const struct Backend *be, float *planes, const void *last,
                             const struct ConvPlanes *layout) {
    with_act_type(be, [&](auto *act) {
        transpose<true>(be, planes, static_cast<const ACT_TYPE(act) *>(last),
                        static_cast<const float *>(nullptr), from_last(layout));
    });
}

void cuda_conv_add_part(const struct Backend *be, float *total, const void *part, int64_t n_elems,
                        bool first) {
    with_act_type(be, [&](auto *act) {
        using T = ACT_TYPE(act);
        CUDA_LAUNCH(be, (add_part_kernel<T>), blocks_for(n_elems, 4 * FULL_WARP_BLOCK, MAX_BLOCKS),
                    FULL_WARP_BLOCK, 0, total, static_cast<const T *>(part), n_elems, first);
    });
}
