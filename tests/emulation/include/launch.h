/* How a kernel is started on the emulated device: the counterpart of
 * src/kernels/cuda/nvcc/launch.h, which describes the macros. */
#ifndef TMD_CUDA_LAUNCH_H
#define TMD_CUDA_LAUNCH_H

#include "emulated/kernel_launch.h"
#include "kernels/cuda/cuda_state.h"

#define CUDA_LAUNCH(be, kernel, grid, block, shared_bytes, ...)                                    \
    do {                                                                                           \
        EMU_LAUNCH(cuda_state(be)->stream, kernel, grid, block, shared_bytes, __VA_ARGS__);        \
        CUDA_CHECK(cudaGetLastError());                                                            \
    } while (0)

#endif
