/* Every call of the CUDA runtime, cuBLASLt and cuDNN goes through one of these: a failure is a broken
 * device or a mistake of ours, never the user's, and ends every rank with call, file, line, host and
 * rank (error.h), and here the device. */
#ifndef TMD_CUDA_CHECK_H
#define TMD_CUDA_CHECK_H

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>

#include "error.h"

/* The device that the calling thread works on; -1 where not even that can be told. */
static inline int cuda_device_at_work(void) {
    int device = -1;
    return cudaGetDevice(&device) == cudaSuccess ? device : -1;
}

#define CUDA_CHECK_STATUS(call, type, success, text)                                               \
    do {                                                                                           \
        type status_ = (call);                                                                     \
        if (status_ != success)                                                                    \
            fatal_at(__FILE__, __LINE__, #call, "device %d: %s", cuda_device_at_work(),            \
                     text(status_));                                                               \
    } while (0)

#define CUDA_CHECK(call) CUDA_CHECK_STATUS(call, cudaError_t, cudaSuccess, cudaGetErrorString)
#define CUBLAS_CHECK(call)                                                                         \
    CUDA_CHECK_STATUS(call, cublasStatus_t, CUBLAS_STATUS_SUCCESS, cublasLtGetStatusString)
#define CUDNN_CHECK(call)                                                                          \
    CUDA_CHECK_STATUS(call, cudnnStatus_t, CUDNN_STATUS_SUCCESS, cudnnGetErrorString)

#endif
