/* What the tests that talk to the emulated cuDNN themselves share: descriptors made and filled, each
 * call of which has to succeed. */
#ifndef TMD_CUDNN_CALLS_H
#define TMD_CUDNN_CALLS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <cudnn.h>

#define CUDA_OK(call) assert_int_equal(call, cudaSuccess)
#define CUDNN_OK(call) assert_int_equal(call, CUDNN_STATUS_SUCCESS)

static inline cudnnBackendDescriptor_t create(cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t d;
    CUDNN_OK(cudnnBackendCreateDescriptor(type, &d));
    return d;
}

static inline void set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t n, const void *values) {
    CUDNN_OK(cudnnBackendSetAttribute(d, name, type, n, values));
}

/* The descriptor is kept alive by what links to it. */
static inline void set_link(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                            cudnnBackendDescriptor_t to) {
    set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to);
    CUDNN_OK(cudnnBackendDestroyDescriptor(to));
}

#endif
