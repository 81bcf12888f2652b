/* Downloads that run in parallel with the operations.
 *
 * A stream of their own copies into pinned memory what the operations before have left:
 *
 *     operations     ... write the bytes | go on, and read them     | write them again ...
 *     downloads                          | copy them to the host ...|
 *     host                                              download_wait
 *
 * It is the host that waits, in whichever thread: one that will write the bytes again, and one that
 * wants the copy.  For memory that is not pinned cudaMemcpyAsync itself waits. */
#include <stdlib.h>

#include "kernels/cuda/cuda_state.h"

struct CudaDownloads {
    cudaStream_t stream;
    cudaEvent_t reached; /* on that of the operations: those before the last download_start are done */
    cudaEvent_t arrived; /* on `stream`: so are the downloads */
};

struct CudaDownloads *cuda_downloads_create(void) {
    struct CudaDownloads *d = xcalloc(sizeof *d);
    CUDA_CHECK(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&d->reached, cudaEventDisableTiming));
    /* who waits for so much leaves the processor to others */
    CUDA_CHECK(
        cudaEventCreateWithFlags(&d->arrived, cudaEventDisableTiming | cudaEventBlockingSync));
    return d;
}

void cuda_downloads_destroy(struct CudaDownloads *d) {
    CUDA_CHECK(cudaEventDestroy(d->arrived));
    CUDA_CHECK(cudaEventDestroy(d->reached));
    CUDA_CHECK(cudaStreamDestroy(d->stream));
    free(d);
}

void cuda_downloads_finish(const struct CudaDownloads *d) {
    CUDA_CHECK(cudaStreamSynchronize(d->stream));
}

void cuda_download_start(const struct Backend *be, void *host, const void *device, int64_t n_bytes) {
    const struct CudaState *state = cuda_state(be);
    const struct CudaDownloads *d = state->downloads;
    CUDA_CHECK(cudaEventRecord(d->reached, state->stream));
    CUDA_CHECK(cudaStreamWaitEvent(d->stream, d->reached, 0));
    CUDA_CHECK(cudaMemcpyAsync(host, device, (size_t)n_bytes, cudaMemcpyDeviceToHost, d->stream));
    CUDA_CHECK(cudaEventRecord(d->arrived, d->stream));
}

void cuda_download_wait(const struct Backend *be) {
    const struct CudaState *state = cuda_state(be);
    /* a thread that never chose a device would take memory of the first one by its first call */
    CUDA_CHECK(cudaSetDevice(state->device));
    CUDA_CHECK(cudaEventSynchronize(state->downloads->arrived));
}

/* Whatever the reason, it can be done without; of a device that has failed the next call tells. */
void *cuda_pinned_alloc(const struct Backend *be, int64_t n_bytes) {
    void *memory = NULL;
    (void)be;
    if (cudaMallocHost(&memory, (size_t)n_bytes) == cudaSuccess) return memory;
    cudaGetLastError(); /* forgotten */
    return NULL;
}

void cuda_pinned_free(const struct Backend *be, void *memory) {
    (void)be;
    CUDA_CHECK(cudaFreeHost(memory));
}
