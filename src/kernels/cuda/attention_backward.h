/* The backward pass of attention through cuDNN. */
#ifndef TMD_ATTENTION_BACKWARD_H
#define TMD_ATTENTION_BACKWARD_H

#include "kernels/cuda/cuda_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As attention_backward of ops_attention.h has them. */
struct AttentionOperands {
    Act *dq, *dk, *dv; /* dk, dv: NULL if not wanted */
    const Act *grad_o, *o, *q, *k, *v;
    const float *lse;
};

/* For bfloat16, with lse and all rows 16-byte aligned.  Uses the workspace.  false: cuDNN refuses
 * the shape, or the workspace is too small; outputs may hold anything. */
bool attention_backward_by_cudnn(const struct Backend *be, const struct AttentionOperands *operands,
                                 const struct AttentionShape *shape);

/* A gradient [n_rows, row_elems] (bfloat16) that comes in parts: sum += part, where `first` sets
 * the sum and `last` writes it to `out`, whose rows are out_stride apart.  row_elems and out_stride
 * are multiples of 8. */
struct GradientPart {
    Act *out;
    float *sum;      /* dense */
    const Act *part; /* dense */
    int64_t n_rows, row_elems, out_stride;
    bool first, last;
};
void attention_add_part(const struct Backend *be, const struct GradientPart *part);

#ifdef __cplusplus
}
#endif

#endif
