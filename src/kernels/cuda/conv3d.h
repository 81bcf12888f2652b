/* The pieces of the CUDA convolution: conv3d.c lets cuDNN compute it between the changes of layout
 * of conv_layout.cu, and conv_plain.cu computes what cuDNN refuses. */
#ifndef TMD_CUDA_CONV3D_H
#define TMD_CUDA_CONV3D_H

#include "kernels/cuda/cuda_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- conv_layout.cu: "planes" is our layout [n, channels, positions], "last" has channels last,
 * [n, positions, padded], padded >= channels a multiple of what 16 bytes hold. */

struct ConvPlanes {
    int64_t n;            /* samples, or output channels of a weight */
    int64_t channels;     /* that take part ... */
    int64_t all_channels; /* ... of those that the tensor in planes has; it begins with the first */
    int64_t positions, padded;
};

/* Channels from `channels` on become zero. */
void cuda_conv_to_last(const struct Backend *be, void *last, const Act *planes,
                       const struct ConvPlanes *layout);
/* `last` holds elements of `type`: Act, or float32 totals.  bias [channels] or NULL. */
void cuda_conv_to_planes(const struct Backend *be, Act *planes, const void *last, enum Dtype type,
                         const Act *bias, const struct ConvPlanes *layout);
void cuda_conv_add_to_planes(const struct Backend *be, float *planes, const void *last,
                             const struct ConvPlanes *layout);

/* total = part or, unless first, total += part, where a part holds Act; n_elems a multiple of 4,
 * both 16-byte aligned. */
void cuda_conv_add_part(const struct Backend *be, float *total, const void *part, int64_t n_elems,
                        bool first);

/* ---- conv_plain.cu: the definition, in float32; the contracts of ops_conv.h */

void cuda_conv_plain_forward(const struct Backend *be, Act *y, const Act *x, const Act *w,
                             const Act *b, const struct ConvShape *shape);
void cuda_conv_plain_backward_input(const struct Backend *be, Act *dx, const Act *dy, const Act *w,
                                    const struct ConvShape *shape);
void cuda_conv_plain_backward_weight(const struct Backend *be, float *dw, const Act *x,
                                     const Act *dy, const struct ConvShape *shape);
void cuda_conv_backward_bias(const struct Backend *be, float *db, const Act *dy,
                             const struct ConvShape *shape);

#ifdef __cplusplus
}
#endif

#endif
