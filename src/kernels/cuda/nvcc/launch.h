/* How a kernel is started, and how it gets shared memory, under nvcc.  The build's include path
 * chooses this file or the one of the emulated device (tests/emulation).
 *
 *     CUDA_LAUNCH(be, (norm_kernel<T>), grid, block, shared_bytes, args...)
 *
 * grid and block convert to dim3; shared_bytes is the dynamic shared memory.  The launch is checked;
 * what the kernel itself does wrong shows at a later call.
 *
 *     SHARED_ARRAY(float, partial, 32);    float *partial, of 32 elements (a constant) per block
 *     SHARED_DYNAMIC(float, rows);         float *rows, the dynamic shared memory */
#ifndef TMD_CUDA_LAUNCH_H
#define TMD_CUDA_LAUNCH_H

#include "kernels/cuda/cuda_state.h"

#define CUDA_UNWRAP(...) __VA_ARGS__
#define CUDA_LAUNCH(be, kernel, grid, block, shared_bytes, ...)                                    \
    do {                                                                                           \
        CUDA_UNWRAP kernel<<<grid, block, shared_bytes, cuda_state(be)->stream>>>(__VA_ARGS__);    \
        CUDA_CHECK(cudaGetLastError());                                                            \
    } while (0)

#define SHARED_ARRAY(type, name, n_elems) __shared__ type name[n_elems]
#define SHARED_DYNAMIC(type, name)                                                                 \
    extern __shared__ __align__(16) unsigned char shared_dynamic_bytes[];                          \
    type *name = reinterpret_cast<type *>(shared_dynamic_bytes)

#endif
