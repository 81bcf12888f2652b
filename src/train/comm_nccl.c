/* Ranks with a CUDA device each.
 *
 * Sums run on a stream of their own, beside the computation that goes on.  Two fences keep them in
 * order: a sum begins when what was enqueued before it on the backend's stream is done, and the
 * backend's stream goes on behind sums_finish when all sums are.
 *
 * A rank that dies leaves the others waiting inside a sum.  So the host does not wait blindly: it polls,
 * and NCCL's word that something broke aborts the communicator and ends every rank. */
#include "train/comm_nccl.h"

#include <cuda_runtime.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/backend_cuda.h"

struct NcclState {
    struct Comm *host;
    ncclComm_t nccl;
    cudaStream_t compute, stream; /* the backend's; the sums' */
    cudaEvent_t computed, summed;
};

#define NCCL_CALL(state, call)                                                                     \
    do {                                                                                           \
        ncclResult_t nccl_status_ = (call);                                                        \
        if (nccl_status_ != ncclSuccess && nccl_status_ != ncclInProgress)                         \
            fatal_at(__FILE__, __LINE__, #call, "%s: %s", ncclGetErrorString(nccl_status_),        \
                     ncclGetLastError((state)->nccl));                                             \
    } while (0)

#define DEVICE_CALL(call)                                                                          \
    do {                                                                                           \
        cudaError_t cuda_status_ = (call);                                                         \
        TMD_CHECK(cuda_status_ == cudaSuccess, "%s", cudaGetErrorString(cuda_status_));            \
    } while (0)

static void nccl_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    struct NcclState *state = comm->state;
    DEVICE_CALL(cudaEventRecord(state->computed, state->compute));
    DEVICE_CALL(cudaStreamWaitEvent(state->stream, state->computed, 0));
    NCCL_CALL(state, ncclAllReduce(buffer, buffer, (size_t)n_elems, ncclFloat, ncclSum, state->nccl,
                                   state->stream));
}

static void stop_if_broken(struct NcclState *state) {
    ncclResult_t status = ncclSuccess;
    NCCL_CALL(state, ncclCommGetAsyncError(state->nccl, &status));
    if (status == ncclSuccess || status == ncclInProgress) return;
    const char *what = ncclGetErrorString(status);
    ncclCommAbort(state->nccl); /* or the kernel at work would wait for its peers for ever */
    fatal_at(__FILE__, __LINE__, "ncclCommGetAsyncError", "a sum over ranks broke off: %s", what);
}

static void nccl_sums_finish(struct Comm *comm) {
    static const struct timespec pause = {.tv_nsec = 20000};
    struct NcclState *state = comm->state;
    DEVICE_CALL(cudaEventRecord(state->summed, state->stream));
    DEVICE_CALL(cudaStreamWaitEvent(state->compute, state->summed, 0));
    for (;;) {
        cudaError_t status = cudaEventQuery(state->summed);
        if (status == cudaSuccess) break;
        TMD_CHECK(status == cudaErrorNotReady, "%s", cudaGetErrorString(status));
        stop_if_broken(state);
        nanosleep(&pause, NULL);
    }
}

static void nccl_sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    struct Comm *inner = ((struct NcclState *)comm->state)->host;
    inner->sum_f64(inner, host, n_elems);
}

static void nccl_broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    struct Comm *inner = ((struct NcclState *)comm->state)->host;
    inner->broadcast(inner, host, n_bytes, root);
}

static void nccl_destroy(struct Comm *comm) {
    struct NcclState *state = comm->state;
    DEVICE_CALL(cudaStreamSynchronize(state->stream));
    NCCL_CALL(state, ncclCommDestroy(state->nccl));
    DEVICE_CALL(cudaEventDestroy(state->computed));
    DEVICE_CALL(cudaEventDestroy(state->summed));
    DEVICE_CALL(cudaStreamDestroy(state->stream));
    free(state);
    free(comm);
}

static void join(struct NcclState *state, const struct Comm *host) {
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    if (host->rank == 0) NCCL_CALL(state, ncclGetUniqueId(&id));
    state->host->broadcast(state->host, &id, sizeof id, 0);
    NCCL_CALL(state, ncclCommInitRank(&state->nccl, host->n_ranks, id, host->rank));
}

struct Comm *comm_for_backend(struct Comm *host, const struct Backend *be) {
    if (host->n_ranks == 1 || strcmp(be->name, "cuda") != 0) return host;
    struct NcclState *state = xcalloc(sizeof *state);
    state->host = host;
    state->compute = backend_cuda_stream(be);
    DEVICE_CALL(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking));
    DEVICE_CALL(cudaEventCreateWithFlags(&state->computed, cudaEventDisableTiming));
    DEVICE_CALL(cudaEventCreateWithFlags(&state->summed, cudaEventDisableTiming));
    join(state, host);
    struct Comm *comm = xcalloc(sizeof *comm);
    *comm = (struct Comm){.name = "nccl",
                          .rank = host->rank,
                          .local_rank = host->local_rank,
                          .n_ranks = host->n_ranks,
                          .state = state,
                          .sum_start = nccl_sum_start,
                          .sums_finish = nccl_sums_finish,
                          .sum_f64 = nccl_sum_f64,
                          .broadcast = nccl_broadcast,
                          .destroy = nccl_destroy};
    return comm;
}
