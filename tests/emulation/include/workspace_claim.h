/* What the emulated device is told of the workspace: the counterpart of
 * src/kernels/cuda/nvcc/workspace_claim.h. */
#ifndef TMD_CUDA_WORKSPACE_CLAIM_H
#define TMD_CUDA_WORKSPACE_CLAIM_H

#include "../emulation.h"

static inline void cuda_workspace_claimed(cudaStream_t stream, void *workspace, size_t n_bytes) {
    emu_claim(stream, workspace, n_bytes);
}

#endif
