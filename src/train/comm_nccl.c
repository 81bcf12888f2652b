/* Ranks with a CUDA device each.
 *
 * Operations run on a stream of their own, in parallel with the backend's.  Two fences keep them in
 * order: an operation begins when all that was enqueued on the backend's stream before it is done;
 * and `wait` lets the backend's stream wait for the event that follows the ticket's operation.  The
 * events form a ring: if a later ticket has taken a ticket's event, the later one is waited for.
 *
 * Communicators that are split from each other share the stream.  NCCL's kernels wait for their
 * peers, so that two on different streams, which two devices begin in different orders, could wait
 * for ever.
 *
 * A rank that dies leaves the others waiting inside an operation.  So `finish` does not wait
 * blindly: it polls, and NCCL's word that something broke aborts the communicators and ends every
 * rank. */
#include "train/comm_nccl.h"

#include <cuda_runtime.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/backend_cuda.h"

/* What split communicators share. */
struct NcclDevice {
    const struct Backend *be;
    cudaStream_t compute, stream; /* the backend's; the operations' */
    cudaEvent_t computed;
    struct NcclState *first; /* of all that are alive */
};

struct NcclState {
    struct Comm *host;  /* of the same ranks */
    bool made_by_split; /* together with its host */
    ncclComm_t nccl;
    struct NcclDevice *device;
    cudaEvent_t done[COMM_TICKETS]; /* of ticket t: done[t % COMM_TICKETS] */
    struct NcclState *next;
};

/* `nccl`: whose last error says more; NULL before there is one. */
#define NCCL_CALL(nccl, call)                                                                      \
    do {                                                                                           \
        ncclResult_t nccl_status_ = (call);                                                        \
        if (nccl_status_ != ncclSuccess && nccl_status_ != ncclInProgress)                         \
            fatal_at(__FILE__, __LINE__, #call, "%s: %s", ncclGetErrorString(nccl_status_),        \
                     ncclGetLastError(nccl));                                                      \
    } while (0)

#define DEVICE_CALL(call)                                                                          \
    do {                                                                                           \
        cudaError_t cuda_status_ = (call);                                                         \
        TMD_CHECK(cuda_status_ == cudaSuccess, "%s", cudaGetErrorString(cuda_status_));            \
    } while (0)

/* ---- operations ---- */

/* The first fence, before each operation; and the event after it. */
static struct NcclState *begin(struct Comm *comm) {
    struct NcclState *state = comm->state;
    struct NcclDevice *device = state->device;
    DEVICE_CALL(cudaEventRecord(device->computed, device->compute));
    DEVICE_CALL(cudaStreamWaitEvent(device->stream, device->computed, 0));
    return state;
}

static CommTicket begun(struct NcclState *state, CommTicket ticket) {
    DEVICE_CALL(cudaEventRecord(state->done[ticket % COMM_TICKETS], state->device->stream));
    return ticket;
}

static CommTicket nccl_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    struct NcclState *state = begin(comm);
    NCCL_CALL(state->nccl, ncclAllReduce(buffer, buffer, (size_t)n_elems, ncclFloat, ncclSum,
                                         state->nccl, state->device->stream));
    return begun(state, comm_count_ring(comm, 2, n_elems * (int64_t)sizeof *buffer));
}

static CommTicket nccl_scatter_sum_start(struct Comm *comm, float *own, float *all,
                                         int64_t n_elems) {
    struct NcclState *state = begin(comm);
    NCCL_CALL(state->nccl, ncclReduceScatter(all, own, (size_t)n_elems, ncclFloat, ncclSum,
                                             state->nccl, state->device->stream));
    return begun(state, comm_count_ring(comm, 1, comm->n_ranks * n_elems * (int64_t)sizeof *all));
}

static CommTicket nccl_gather_start(struct Comm *comm, void *all, const void *own,
                                    int64_t n_bytes) {
    struct NcclState *state = begin(comm);
    NCCL_CALL(state->nccl, ncclAllGather(own, all, (size_t)n_bytes, ncclInt8, state->nccl,
                                         state->device->stream));
    return begun(state, comm_count_ring(comm, 1, comm->n_ranks * n_bytes));
}

/* One group, so that no send waits for a receive that stands behind another. */
static CommTicket nccl_exchange_start(struct Comm *comm, void *recv,
                                      const struct CommPart *recv_parts, const void *send,
                                      const struct CommPart *send_parts) {
    struct NcclState *state = begin(comm);
    cudaStream_t stream = state->device->stream;
    NCCL_CALL(state->nccl, ncclGroupStart());
    for (int rank = 0; rank < comm->n_ranks; rank++) {
        struct CommPart to = recv_parts[rank], from = send_parts[rank];
        if (from.n_bytes)
            NCCL_CALL(state->nccl, ncclSend((const char *)send + from.at, (size_t)from.n_bytes,
                                            ncclInt8, rank, state->nccl, stream));
        if (to.n_bytes)
            NCCL_CALL(state->nccl, ncclRecv((char *)recv + to.at, (size_t)to.n_bytes, ncclInt8,
                                            rank, state->nccl, stream));
    }
    NCCL_CALL(state->nccl, ncclGroupEnd());
    return begun(state, comm_count_exchange(comm, send_parts));
}

/* ---- waiting ---- */

static void nccl_wait(struct Comm *comm, CommTicket ticket) {
    struct NcclState *state = comm->state;
    if (ticket)
        DEVICE_CALL(
            cudaStreamWaitEvent(state->device->compute, state->done[ticket % COMM_TICKETS], 0));
}

/* All communicators are asked: on their stream, one waits for another's operation too. */
static void stop_if_broken(const struct NcclDevice *device) {
    ncclResult_t broken = ncclSuccess;
    for (const struct NcclState *s = device->first; s && broken == ncclSuccess; s = s->next) {
        NCCL_CALL(s->nccl, ncclCommGetAsyncError(s->nccl, &broken));
        if (broken == ncclInProgress) broken = ncclSuccess;
    }
    if (broken == ncclSuccess) return;
    /* or the kernels at work would wait for their peers for ever */
    for (const struct NcclState *s = device->first; s; s = s->next) ncclCommAbort(s->nccl);
    fatal_at(__FILE__, __LINE__, "ncclCommGetAsyncError",
             "an operation between ranks broke off: %s", ncclGetErrorString(broken));
}

static void nccl_finish(struct Comm *comm) {
    static const struct timespec pause = {.tv_nsec = 20000};
    struct NcclState *state = comm->state;
    nccl_wait(comm, comm->last_ticket);
    for (;;) {
        cudaError_t status = cudaEventQuery(state->done[comm->last_ticket % COMM_TICKETS]);
        TMD_CHECK(status == cudaSuccess || status == cudaErrorNotReady, "%s",
                  cudaGetErrorString(status));
        if (status != cudaSuccess) cudaGetLastError(); /* or the next launch would be blamed */
        stop_if_broken(state->device);
        if (status == cudaSuccess) break;
        nanosleep(&pause, NULL);
    }
}

/* ---- host memory ---- */

static void nccl_sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    struct Comm *inner = ((struct NcclState *)comm->state)->host;
    inner->sum_f64(inner, host, n_elems);
}

static void nccl_broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    struct Comm *inner = ((struct NcclState *)comm->state)->host;
    inner->broadcast(inner, host, n_bytes, root);
}

/* ---- beginning and end ---- */

static void device_free(struct NcclDevice *device) {
    DEVICE_CALL(cudaEventDestroy(device->computed));
    DEVICE_CALL(cudaStreamDestroy(device->stream));
    free(device);
}

static void nccl_destroy(struct Comm *comm) {
    struct NcclState *state = comm->state, **link = &state->device->first;
    DEVICE_CALL(cudaStreamSynchronize(state->device->stream));
    while (*link != state) link = &(*link)->next;
    *link = state->next;
    NCCL_CALL(state->nccl, ncclCommDestroy(state->nccl));
    for (int i = 0; i < COMM_TICKETS; i++) DEVICE_CALL(cudaEventDestroy(state->done[i]));
    if (!state->device->first) device_free(state->device);
    if (state->made_by_split) state->host->destroy(state->host);
    free(state);
    free(comm);
}

static struct Comm *nccl_split(struct Comm *comm, int n_ranks, int stride);

/* Of the ranks of `host`, which NCCL joined in `nccl`. */
static struct Comm *make(struct Comm *host, ncclComm_t nccl, struct NcclDevice *device,
                         bool made_by_split) {
    struct NcclState *state = xcalloc(sizeof *state);
    struct Comm *comm = xcalloc(sizeof *comm);
    *state = (struct NcclState){.host = host,
                                .made_by_split = made_by_split,
                                .nccl = nccl,
                                .device = device,
                                .next = device->first};
    device->first = state;
    for (int i = 0; i < COMM_TICKETS; i++)
        DEVICE_CALL(cudaEventCreateWithFlags(&state->done[i], cudaEventDisableTiming));
    *comm = (struct Comm){.name = "nccl",
                          .rank = host->rank,
                          .local_rank = host->local_rank,
                          .n_ranks = host->n_ranks,
                          .state = state,
                          .sum_start = nccl_sum_start,
                          .scatter_sum_start = nccl_scatter_sum_start,
                          .gather_start = nccl_gather_start,
                          .exchange_start = nccl_exchange_start,
                          .wait = nccl_wait,
                          .finish = nccl_finish,
                          .sum_f64 = nccl_sum_f64,
                          .broadcast = nccl_broadcast,
                          .split = nccl_split,
                          .destroy = nccl_destroy};
    return comm;
}

static struct Comm *nccl_split(struct Comm *comm, int n_ranks, int stride) {
    struct NcclState *state = comm->state;
    int group = comm_split_group(comm, n_ranks, stride);
    if (n_ranks == 1) return comm_self_create(state->device->be);
    struct Comm *host = state->host->split(state->host, n_ranks, stride);
    ncclComm_t nccl;
    NCCL_CALL(state->nccl, ncclCommSplit(state->nccl, group, comm->rank, &nccl, NULL));
    return make(host, nccl, state->device, true);
}

struct Comm *comm_nccl_create(struct Comm *host, const struct Backend *be) {
    struct NcclDevice *device = xcalloc(sizeof *device);
    device->be = be;
    device->compute = backend_cuda_stream(be);
    DEVICE_CALL(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking));
    DEVICE_CALL(cudaEventCreateWithFlags(&device->computed, cudaEventDisableTiming));
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    ncclComm_t nccl;
    if (host->rank == 0) NCCL_CALL(NULL, ncclGetUniqueId(&id));
    host->broadcast(host, &id, sizeof id, 0);
    NCCL_CALL(NULL, ncclCommInitRank(&nccl, host->n_ranks, id, host->rank));
    return make(host, nccl, device, false);
}
