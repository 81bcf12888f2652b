/* Attention by kernels of ours, for what cuDNN refuses: float32, head widths that are no multiple
 * of 8, rows that are not aligned, a single key.  Contracts of ops_attention.h, head_dim up to 512;
 * the same bits for the same input.  Float32 arithmetic throughout. */
#ifndef TMD_ATTENTION_PLAIN_H
#define TMD_ATTENTION_PLAIN_H

#include "kernels/cuda/cuda_state.h"

#ifdef __cplusplus
extern "C" {
#endif

void attention_plain_forward(const struct Backend *be, Act *o, float *lse, const Act *q,
                             const Act *k, const Act *v, struct AttentionShape s);

/* Uses 4 batch heads q_tokens bytes of the workspace. */
void attention_plain_backward(const struct Backend *be, Act *dq, Act *dk, Act *dv,
                              const Act *grad_o, const Act *o, const float *lse, const Act *q,
                              const Act *k, const Act *v, struct AttentionShape s);

#ifdef __cplusplus
}
#endif

#endif
