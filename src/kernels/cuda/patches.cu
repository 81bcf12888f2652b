/* Patches of videos: a transposition between planes and token vectors.
 *
 * A video is [sample][channel][position], positions (frame, row, column) with the last fastest.  A
 * position belongs to one token and to one place in its patch; its channels lie in that token's
 * vector, one apart (channels last) or a patch's volume apart.  A block takes TILE positions of
 * TILE channels through shared memory: its threads run along positions where they touch the video,
 * along channels where they touch the tokens, so that both are read and written in whole lines
 * (with channels first, by a block's neighbouring positions together).  Each element is read once
 * and written once. */
#include "kernels/cuda/kernel.cuh"

namespace {

enum { TILE = 64, PATCH_BLOCK = 256, SWEEP = PATCH_BLOCK / TILE };

/* Tiles are numbered with positions fastest, then channels, then samples. */
struct Tiling {
    struct PatchShape shape;
    unsigned int n_positions, position_tiles, channel_tiles;
    int64_t channel_step; /* from a channel to the next in a token's vector */
};

/* A block's tile: the first elements of its corner, and how much of it there is. */
template <typename T, typename V> struct Tile {
    V *planes;  /* channels are tiling.n_positions apart */
    T *vectors; /* of the sample, from the tile's first channel on */
    unsigned int position;
    int n_channels, n_positions;

    __device__ Tile(T *tokens, V *video, const Tiling &tiling) {
        int64_t sample = blockIdx.x / tiling.position_tiles / tiling.channel_tiles;
        int64_t channel = blockIdx.x / tiling.position_tiles % tiling.channel_tiles * TILE;
        int64_t before = sample * tiling.shape.channels * tiling.n_positions;
        position = blockIdx.x % tiling.position_tiles * TILE;
        planes = video + before + channel * tiling.n_positions + position;
        vectors = tokens + before + channel * tiling.channel_step;
        n_channels = (int)min(tiling.shape.channels - channel, (int64_t)TILE);
        n_positions = (int)min(tiling.n_positions - position, (unsigned int)TILE);
    }
};

/* Where among a sample's token elements channel 0 of position p is. */
__device__ int64_t token_place(const struct PatchShape &s, unsigned int p) {
    unsigned int width = s.width, height = s.height;
    unsigned int pt = s.patch[0], ph = s.patch[1], pw = s.patch[2];
    unsigned int w = p % width, h = p / width % height, f = p / width / height;
    int64_t token = ((int64_t)(f / pt) * (height / ph) + h / ph) * (width / pw) + w / pw;
    int64_t offset = (f % pt * ph + h % ph) * pw + w % pw;
    return token * s.channels * pt * ph * pw + offset * (s.channels_last ? s.channels : 1);
}

/* put(i, j, get(i, j)) for i < n_fast, j < n_slow, shared out over the block; i runs along its
 * threads.  All of a thread's elements are under way before it waits for the first: rows beyond the
 * last repeat it, so that no branch stands between two reads. */
template <typename Elem, typename Get, typename Put>
__device__ __forceinline__ void sweep(int n_fast, int n_slow, Get get, Put put) {
    int i = threadIdx.x % TILE, first = threadIdx.x / TILE;
    if (i >= n_fast) return;
    Elem elems[TILE / SWEEP];
    for (int k = 0; k < TILE / SWEEP; k++) elems[k] = get(i, min(first + k * SWEEP, n_slow - 1));
    for (int k = 0; k < TILE / SWEEP; k++)
        if (first + k * SWEEP < n_slow) put(i, first + k * SWEEP, elems[k]);
}

template <bool GATHER, typename T, typename V>
__global__ void __launch_bounds__(PATCH_BLOCK) patches_kernel(T *tokens, V *video, Tiling tiling) {
    enum { PITCH = TILE + 4 / sizeof(T) }; /* an odd number of words: a column hits every bank */
    SHARED_ARRAY(T, elems, TILE * PITCH);  /* [channel][position] */
    SHARED_ARRAY(int64_t, places, TILE);
    Tile<T, V> tile(tokens, video, tiling);
    int64_t plane_step = tiling.n_positions, channel_step = tiling.channel_step;
    if ((int)threadIdx.x < tile.n_positions)
        places[threadIdx.x] = token_place(tiling.shape, tile.position + threadIdx.x);
    __syncthreads();
    auto of_video = [&](int p, int c) -> V & { return tile.planes[c * plane_step + p]; };
    auto of_tokens = [&](int c, int p) -> T & {
        return tile.vectors[places[p] + c * channel_step];
    };
    auto of_tile = [&](int c, int p) -> T & { return elems[c * PITCH + p]; };
    if constexpr (GATHER)
        sweep<V>(tile.n_positions, tile.n_channels, of_video,
                 [&](int p, int c, V x) { of_tile(c, p) = from_f32<T>(to_f32(x)); });
    else
        sweep<T>(tile.n_channels, tile.n_positions, of_tokens,
                 [&](int c, int p, T x) { of_tile(c, p) = x; });
    __syncthreads();
    if constexpr (GATHER)
        sweep<T>(tile.n_channels, tile.n_positions, of_tile,
                 [&](int c, int p, T x) { of_tokens(c, p) = x; });
    else
        sweep<T>(
            tile.n_positions, tile.n_channels, [&](int p, int c) { return of_tile(c, p); },
            [&](int p, int c, T x) { of_video(p, c) = from_f32<V>(to_f32(x)); });
}

template <bool GATHER, typename T, typename V>
void patches_move(const struct Backend *be, T *tokens, V *video, struct PatchShape s) {
    int64_t n_positions = s.frames * s.height * s.width;
    int64_t position_tiles = (n_positions + TILE - 1) / TILE;
    int64_t channel_tiles = (s.channels + TILE - 1) / TILE;
    int64_t n_tiles = s.batch * channel_tiles * position_tiles;
    TMD_CHECK(n_positions <= INT32_MAX && n_tiles <= INT32_MAX, "%lld samples of planes of %lld",
              (long long)s.batch, (long long)n_positions);
    if (n_tiles == 0) return;
    Tiling tiling = {s, (unsigned int)n_positions, (unsigned int)position_tiles,
                     (unsigned int)channel_tiles,
                     s.channels_last ? 1 : s.patch[0] * s.patch[1] * s.patch[2]};
    CUDA_LAUNCH(be, (patches_kernel<GATHER, T, V>), (unsigned int)n_tiles, PATCH_BLOCK, 0, tokens,
                video, tiling);
}

} // namespace

extern "C" void cuda_patches_gather(const struct Backend *be, Act *tokens, const float *video,
                                    struct PatchShape shape) {
    with_act_type(be, [&](auto *type) {
        patches_move<true>(be, (ACT_TYPE(type) *)tokens, (float *)video, shape);
    });
}

extern "C" void cuda_patches_scatter(const struct Backend *be, float *video, const Act *tokens,
                                     struct PatchShape shape) {
    with_act_type(
        be, [&](auto *type) { patches_move<false>(be, (ACT_TYPE(type) *)tokens, video, shape); });
}

extern "C" void cuda_act_patches_gather(const struct Backend *be, Act *tokens, const Act *video,
                                        struct PatchShape shape) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        patches_move<true>(be, (T *)tokens, (T *)video, shape);
    });
}

extern "C" void cuda_act_patches_scatter(const struct Backend *be, Act *video, const Act *tokens,
                                         struct PatchShape shape) {
    with_act_type(be, [&](auto *type) {
        using T = ACT_TYPE(type);
        patches_move<false>(be, (T *)tokens, (T *)video, shape);
    });
}
