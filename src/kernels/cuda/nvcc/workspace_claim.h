/* What a device is told of the workspace when an operation asks for its first n_bytes: nothing, it
 * knows no bounds inside an allocation.  The emulated device has a file of the same name, and lets
 * nobody touch the rest. */
#ifndef TMD_CUDA_WORKSPACE_CLAIM_H
#define TMD_CUDA_WORKSPACE_CLAIM_H

#include <cuda_runtime.h>

static inline void cuda_workspace_claimed(cudaStream_t stream, void *workspace, size_t n_bytes) {
    (void)stream, (void)workspace, (void)n_bytes;
}

#endif
