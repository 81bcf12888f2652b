/* Sums a gradient that comes in parts, in float32 and in the order of the parts.  Reads part and
 * sum, writes sum, and at the end the result: 16-byte accesses, one pass. */
#include "kernel.cuh"
#include "kernels/cuda/attention_backward.h"

namespace {

using Bf16 = __nv_bfloat16;
enum { THREADS = FULL_WARP_BLOCK, WIDTH = Pack<Bf16>::WIDTH, MOST_BLOCKS = 4096 };

__global__ void __launch_bounds__(THREADS)
    attention_add_part_kernel(Bf16 *out, float *sum, const Bf16 *part, int64_t n_packs,
                              int64_t row_packs, int64_t out_stride, bool first, bool last) {
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n_packs;
         i += (int64_t)gridDim.x * THREADS) {
        Pack<Bf16> added = pack_load(part + i * WIDTH), rounded;
        Pack<float> half[2];
        for (int h = 0; h < 2; h++) {
            if (!first) half[h] = pack_load(sum + i * WIDTH + h * Pack<float>::WIDTH);
            for (int e = 0; e < Pack<float>::WIDTH; e++) {
                float x = to_f32(added.elems[h * Pack<float>::WIDTH + e]);
                half[h].elems[e] = first ? x : half[h].elems[e] + x;
                rounded.elems[h * Pack<float>::WIDTH + e] = from_f32<Bf16>(half[h].elems[e]);
            }
        }
        if (last) {
            pack_store(out + i / row_packs * out_stride + i % row_packs * WIDTH, rounded);
            continue;
        }
        for (int h = 0; h < 2; h++) pack_store(sum + i * WIDTH + h * Pack<float>::WIDTH, half[h]);
    }
}

} // namespace

void attention_add_part(const struct Backend *be, const struct GradientPart *p) {
    int64_t row_packs = p->row_elems / WIDTH, n_packs = p->n_rows * row_packs;
    CUDA_LAUNCH(be, (attention_add_part_kernel), blocks_for(n_packs, THREADS, MOST_BLOCKS), THREADS,
                0, (Bf16 *)p->out, p->sum, (const Bf16 *)p->part, n_packs, row_packs, p->out_stride,
                p->first, p->last);
}
