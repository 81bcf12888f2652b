/* NCCL between emulated devices: its communicators. */
#include <stdlib.h>
#include <string.h>

#include "nccl_internal.h"

ncclResult_t ncclGetVersion(int *version) {
    *version = 22800;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static int n_made;
    memset(id, 0, sizeof *id);
    n_made++;
    memcpy(id->internal, "emulated", 8);
    memcpy(id->internal + 8, &n_made, sizeof n_made);
    return ncclSuccess;
}

int emulated_nccl_agrees(ncclComm_t comm, const void *mine, int n_bytes) {
    char root[NCCL_UNIQUE_ID_BYTES];
    memcpy(root, mine, (size_t)n_bytes);
    MPI_Bcast(root, n_bytes, MPI_BYTE, 0, comm->mpi);
    int same = memcmp(root, mine, (size_t)n_bytes) == 0, all;
    MPI_Allreduce(&same, &all, 1, MPI_INT, MPI_LAND, comm->mpi);
    return all;
}

/* Of the ranks of `mpi`, which becomes its own. */
static ncclComm_t make(MPI_Comm mpi) {
    struct ncclComm *made = calloc(1, sizeof *made);
    if (!made) emu_reject("NCCL: out of host memory");
    made->mpi = mpi;
    MPI_Comm_size(mpi, &made->n_ranks);
    MPI_Comm_rank(mpi, &made->rank);
    return made;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank) {
    MPI_Comm mpi;
    MPI_Comm_dup(MPI_COMM_WORLD, &mpi);
    struct ncclComm *made = make(mpi);
    if (made->n_ranks != n_ranks || made->rank != rank)
        emu_reject("ncclCommInitRank: rank %d of %d joins as rank %d of %d", made->rank,
                   made->n_ranks, rank, n_ranks);
    if (memcmp(id.internal, "emulated", 8) != 0 ||
        !emulated_nccl_agrees(made, &id, NCCL_UNIQUE_ID_BYTES))
        emu_reject("ncclCommInitRank: rank %d has another unique id than its peers", rank);
    *comm = made;
    return ncclSuccess;
}

static void require_idle(ncclComm_t comm, const char *what) {
    if (comm->n_outstanding)
        emu_reject("%s: %d operations of the communicator have not happened yet", what,
                   comm->n_outstanding);
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *made,
                           ncclConfig_t *config) {
    if (config) emu_reject("ncclCommSplit: a configuration is not emulated");
    if (color < 0 && color != NCCL_SPLIT_NOCOLOR) return ncclInvalidArgument;
    require_idle(comm, "ncclCommSplit");
    MPI_Comm mpi;
    MPI_Comm_split(comm->mpi, color == NCCL_SPLIT_NOCOLOR ? MPI_UNDEFINED : color, key, &mpi);
    *made = mpi == MPI_COMM_NULL ? NULL : make(mpi);
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    require_idle(comm, "ncclCommDestroy");
    MPI_Comm_free(&comm->mpi);
    free(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    free(comm); /* without its peers' help */
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *status) {
    *status = comm->broken;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t status) {
    return status == ncclSuccess       ? "no error"
           : status == ncclRemoteError ? "remote process exited or there was a network error"
                                       : "NCCL error";
}

const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return "";
}
