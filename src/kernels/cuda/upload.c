/* Uploads that run in parallel with the operations.
 *
 * The host copies into pieces of pinned memory, from which a stream of the uploads' own copies on
 * to the device; it waits only where a piece is still being read.  upload_wait is the fence in both
 * directions:
 *
 *     operations     ... read the old bytes | upload_wait | read the new bytes ...
 *     uploads                 new bytes ... |             | others, over the old bytes ...
 *
 * Operations after it wait for the uploads before it, and uploads after it wait for the operations
 * before it. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_state.h"

enum {
    N_PIECES = 2, /* one is filled while the other is read */
    PIECE_BYTES = 4 << 20
};

struct CudaUploads {
    cudaStream_t stream;
    cudaEvent_t arrived; /* on `stream`: the uploads before the last upload_wait are done */
    cudaEvent_t reached; /* on that of the operations: those before it are */
    struct {
        void *pinned;
        cudaEvent_t copied; /* from it */
    } pieces[N_PIECES];
    int at; /* the piece to be filled next */
};

static cudaEvent_t event_create(void) {
    cudaEvent_t event;
    CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

struct CudaUploads *cuda_uploads_create(void) {
    struct CudaUploads *u = xcalloc(sizeof *u);
    CUDA_CHECK(cudaStreamCreateWithFlags(&u->stream, cudaStreamNonBlocking));
    u->arrived = event_create();
    u->reached = event_create();
    for (int i = 0; i < N_PIECES; i++) {
        CUDA_CHECK(cudaMallocHost(&u->pieces[i].pinned, PIECE_BYTES));
        u->pieces[i].copied = event_create();
    }
    return u;
}

void cuda_uploads_destroy(struct CudaUploads *u) {
    for (int i = 0; i < N_PIECES; i++) {
        CUDA_CHECK(cudaEventDestroy(u->pieces[i].copied));
        CUDA_CHECK(cudaFreeHost(u->pieces[i].pinned));
    }
    CUDA_CHECK(cudaEventDestroy(u->reached));
    CUDA_CHECK(cudaEventDestroy(u->arrived));
    CUDA_CHECK(cudaStreamDestroy(u->stream));
    free(u);
}

void cuda_uploads_finish(const struct CudaUploads *u) {
    CUDA_CHECK(cudaStreamSynchronize(u->stream));
}

void cuda_upload_start(const struct Backend *be, void *device, const void *host, int64_t n_bytes) {
    struct CudaUploads *u = cuda_state(be)->uploads;
    for (int64_t done = 0; done < n_bytes; done += PIECE_BYTES, u->at = (u->at + 1) % N_PIECES) {
        size_t n = (size_t)(n_bytes - done < PIECE_BYTES ? n_bytes - done : PIECE_BYTES);
        void *pinned = u->pieces[u->at].pinned;
        cudaEvent_t copied = u->pieces[u->at].copied;
        CUDA_CHECK(cudaEventSynchronize(copied));
        memcpy(pinned, (const char *)host + done, n);
        CUDA_CHECK(
            cudaMemcpyAsync((char *)device + done, pinned, n, cudaMemcpyHostToDevice, u->stream));
        CUDA_CHECK(cudaEventRecord(copied, u->stream));
    }
}

void cuda_upload_wait(const struct Backend *be) {
    const struct CudaState *state = cuda_state(be);
    const struct CudaUploads *u = state->uploads;
    CUDA_CHECK(cudaEventRecord(u->arrived, u->stream));
    CUDA_CHECK(cudaStreamWaitEvent(state->stream, u->arrived, 0));
    CUDA_CHECK(cudaEventRecord(u->reached, state->stream));
    CUDA_CHECK(cudaStreamWaitEvent(u->stream, u->reached, 0));
}
