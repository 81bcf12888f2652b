/* What the tests of the emulated device share: a stream, and device memory filled from host memory
 * and read back into it. */
#ifndef TMD_DEVICE_FIXTURE_H
#define TMD_DEVICE_FIXTURE_H

#include <cstdarg>
#include <cstddef>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" { /* which the header does not say itself */
#include <cmocka.h>
}

#include "child.h"
#include "emulated/kernel_launch.h"

/* Ends the program unless the call succeeded: for tests that are not about its failure. */
inline void must(cudaError_t error) {
    if (error == cudaSuccess) return;
    fprintf(stderr, "unexpected: %s\n", cudaGetErrorString(error));
    exit(1);
}

class Stream {
    cudaStream_t handle;

  public:
    Stream() {
        must(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking));
    }
    ~Stream() {
        must(cudaStreamDestroy(handle));
    }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    operator cudaStream_t() const {
        return handle;
    }
};

/* n elements of device memory, uninitialised. */
template <typename T> class Array {
    T *memory;
    size_t n_elems;

  public:
    explicit Array(size_t n) : n_elems(n) {
        must(cudaMalloc(&memory, n * sizeof(T)));
    }
    ~Array() {
        must(cudaFree(memory));
    }
    Array(const Array &) = delete;
    Array &operator=(const Array &) = delete;
    operator T *() const {
        return memory;
    }
    size_t n_bytes() const {
        return n_elems * sizeof(T);
    }
    void write(const std::vector<T> &host, cudaStream_t stream) const {
        must(cudaMemcpyAsync(memory, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice,
                             stream));
    }
    /* Waits for `stream`, and only for it. */
    std::vector<T> read(cudaStream_t stream) const {
        std::vector<T> host(n_elems);
        must(cudaMemcpyAsync(host.data(), memory, n_bytes(), cudaMemcpyDeviceToHost, stream));
        must(cudaStreamSynchronize(stream));
        return host;
    }
};

/* 0, 1, 2, ... */
inline std::vector<float> counting(size_t n) {
    std::vector<float> x(n);
    for (size_t i = 0; i < n; i++) x[i] = (float)i;
    return x;
}

#endif
