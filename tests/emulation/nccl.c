/* NCCL between emulated devices: its collectives run over MPI, in stream order, when the emulated
 * device gets round to them.
 *
 * What NCCL leaves undefined is rejected here: ranks that do not agree on the communicator or on the
 * number of elements, buffers that are not wholly inside device memory, in-place operands that overlap
 * by halves, a type or an operation that nobody calls. */
#include <mpi.h>
#include <nccl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "emulation.h"

struct ncclComm {
    MPI_Comm mpi; /* of its own: its messages never meet those of the program */
    int n_ranks, rank;
};

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static int n_made;
    memset(id, 0, sizeof *id);
    n_made++;
    memcpy(id->internal, "emulated", 8);
    memcpy(id->internal + 8, &n_made, sizeof n_made);
    return ncclSuccess;
}

/* Whether the root's bytes are everybody's. */
static bool same_everywhere(MPI_Comm mpi, const void *mine, int n_bytes) {
    char root[NCCL_UNIQUE_ID_BYTES];
    memcpy(root, mine, (size_t)n_bytes);
    MPI_Bcast(root, n_bytes, MPI_BYTE, 0, mpi);
    int same = memcmp(root, mine, (size_t)n_bytes) == 0, all;
    MPI_Allreduce(&same, &all, 1, MPI_INT, MPI_LAND, mpi);
    return all;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank) {
    struct ncclComm *made = calloc(1, sizeof *made);
    if (!made) return ncclSystemError;
    int world_ranks, world_rank;
    MPI_Comm_size(MPI_COMM_WORLD, &world_ranks);
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    if (world_ranks != n_ranks || world_rank != rank)
        emu_reject("ncclCommInitRank: rank %d of %d joins as rank %d of %d", world_rank, world_ranks,
                   rank, n_ranks);
    MPI_Comm_dup(MPI_COMM_WORLD, &made->mpi);
    made->n_ranks = n_ranks;
    made->rank = rank;
    if (memcmp(id.internal, "emulated", 8) != 0 ||
        !same_everywhere(made->mpi, &id, NCCL_UNIQUE_ID_BYTES))
        emu_reject("ncclCommInitRank: rank %d has another unique id than its peers", rank);
    *comm = made;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    MPI_Comm_free(&comm->mpi);
    free(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    free(comm); /* without its peers' help */
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *status) {
    (void)comm;
    *status = ncclSuccess;
    return ncclSuccess;
}

struct Sum {
    ncclComm_t comm;
    const float *send;
    float *receive;
    uint64_t n_elems;
};

/* In the order of the ranks, so that all of them get the same bits. */
static void sum_run(void *arg) {
    const struct Sum *sum = arg;
    ncclComm_t comm = sum->comm;
    if (!same_everywhere(comm->mpi, &sum->n_elems, sizeof sum->n_elems))
        emu_reject("ncclAllReduce: rank %d sums %llu elements, a peer another number", comm->rank,
                   (unsigned long long)sum->n_elems);
    enum { PART = 1 << 16 };
    float *parts = malloc(sizeof *parts * PART * (size_t)comm->n_ranks);
    if (!parts) emu_reject("ncclAllReduce: out of host memory");
    for (uint64_t at = 0; at < sum->n_elems; at += PART) {
        int n = (int)(sum->n_elems - at < PART ? sum->n_elems - at : PART);
        MPI_Allgather(sum->send + at, n, MPI_FLOAT, parts, n, MPI_FLOAT, comm->mpi);
        for (int i = 0; i < n; i++) {
            float total = parts[i];
            for (int rank = 1; rank < comm->n_ranks; rank++) total += parts[rank * n + i];
            sum->receive[at + (uint64_t)i] = total;
        }
    }
    free(parts);
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t n_elems, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclFloat || op != ncclSum) return ncclInvalidArgument;
    size_t n_bytes = n_elems * sizeof(float);
    emu_require_device(send, n_bytes, "ncclAllReduce: send buffer");
    emu_require_device(receive, n_bytes, "ncclAllReduce: receive buffer");
    uintptr_t from = (uintptr_t)send, to = (uintptr_t)receive;
    if (from != to && from < to + n_bytes && to < from + n_bytes)
        emu_reject("ncclAllReduce: send and receive buffers overlap without being the same");
    struct Sum *sum = malloc(sizeof *sum);
    if (!sum) return ncclSystemError;
    *sum = (struct Sum){comm, send, receive, n_elems};
    emu_enqueue(stream, "ncclAllReduce", sum_run, sum, free);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t status) {
    return status == ncclSuccess ? "no error" : "NCCL error";
}

const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return "";
}
