/* NCCL between emulated devices: its communicators. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nccl_internal.h"

ncclResult_t ncclGetVersion(int *version) {
    *version = 22800;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    nccl_make_name(id);
    return ncclSuccess;
}

/* ---- beginning ---- */

static void *zeroed(size_t n_elems, size_t n_bytes) {
    void *memory = calloc(n_elems, n_bytes);
    if (!memory) emu_reject("NCCL: out of host memory");
    return memory;
}

static void close_peers(struct NcclPeer *peers, int n_ranks) {
    for (int r = 0; r < n_ranks; r++) {
        close(peers[r].to);
        if (peers[r].from != peers[r].to) close(peers[r].from);
    }
    free(peers);
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank) {
    if (rank < 0 || rank >= n_ranks) return ncclInvalidArgument;
    struct NcclPeer *peers = zeroed((size_t)n_ranks, sizeof *peers);
    if (!nccl_meet(&id, rank, n_ranks, peers)) {
        close_peers(peers, n_ranks);
        return ncclSystemError;
    }
    *comm = zeroed(1, sizeof **comm);
    (*comm)->n_ranks = n_ranks;
    (*comm)->rank = rank;
    (*comm)->peers = peers;
    (*comm)->n_holders = 1;
    return ncclSuccess;
}

static void require_idle(ncclComm_t comm, const char *what) {
    int n_outstanding = comm->n_holders - 1;
    if (n_outstanding)
        emu_reject("%s: %d operations of the communicator have not happened yet", what,
                   n_outstanding);
}

/* What the ranks tell each other before they split. */
struct Wish {
    int color, key;
    ncclUniqueId id; /* for a group of which this rank is the first */
};

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *made,
                           ncclConfig_t *config) {
    if (config) emu_reject("ncclCommSplit: a configuration is not emulated");
    if (color < 0 && color != NCCL_SPLIT_NOCOLOR) return ncclInvalidArgument;
    require_idle(comm, "ncclCommSplit");
    struct Wish own = {.color = color, .key = key};
    struct Wish *wishes = zeroed((size_t)comm->n_ranks, sizeof *wishes);
    nccl_make_name(&own.id);
    bool ok = nccl_swap_parts(comm, "ncclCommSplit", ncclInt8, &own, 0, wishes, sizeof own);
    int first = -1, n_ranks = 0, rank = 0;
    for (int r = 0; ok && r < comm->n_ranks; r++) {
        if (wishes[r].color != color) continue;
        if (first < 0) first = r;
        rank += wishes[r].key < key || (wishes[r].key == key && r < comm->rank);
        n_ranks++;
    }
    *made = NULL;
    ncclResult_t status = ok ? ncclSuccess : ncclRemoteError;
    if (ok && color != NCCL_SPLIT_NOCOLOR)
        status = ncclCommInitRank(made, n_ranks, wishes[first].id, rank);
    free(wishes);
    return status;
}

/* ---- end ---- */

void nccl_release(ncclComm_t comm) {
    if (atomic_fetch_sub(&comm->n_holders, 1) > 1) return;
    close_peers(comm->peers, comm->n_ranks);
    free(comm);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    require_idle(comm, "ncclCommDestroy");
    int unheard = nccl_unheard_peer(comm);
    if (unheard >= 0 && comm->broken == ncclSuccess)
        emu_reject("ncclCommDestroy: rank %d has not received all that rank %d sent it", comm->rank,
                   unheard);
    nccl_release(comm);
    return ncclSuccess;
}

/* Without its peers' help, and from any thread: who waits for a peer hears that it is gone. */
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    for (int r = 0; r < comm->n_ranks; r++) shutdown(comm->peers[r].to, SHUT_RDWR);
    nccl_release(comm);
    return ncclSuccess;
}

/* ---- errors ---- */

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *status) {
    *status = comm->broken;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t status) {
    return status == ncclSuccess       ? "no error"
           : status == ncclSystemError ? "unhandled system error"
           : status == ncclRemoteError ? "remote process exited or there was a network error"
                                       : "NCCL error";
}

const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return "";
}
