/* The inside of the emulated NCCL: communicators (nccl.c), how their ranks meet (nccl_meeting.c),
 * the bytes that go between them (nccl_transfers.c), and what they are given to do
 * (nccl_operations.c). */
#ifndef TMD_EMULATED_NCCL_INTERNAL_H
#define TMD_EMULATED_NCCL_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>

#include <nccl.h>

#include "emulation.h"

/* Sockets to and from a peer: the same one, but for a rank itself the two ends of a pair; -1: none.
 */
struct NcclPeer {
    int to, from;
};

struct ncclComm {
    int n_ranks, rank;
    struct NcclPeer *peers;      /* [n_ranks] */
    atomic_int n_holders;        /* its owner, and all operations that have not happened yet */
    _Atomic ncclResult_t broken; /* ncclSuccess: not */
};

/* The last holder's frees it. */
void nccl_release(ncclComm_t comm);

/* ---- nccl_meeting.c */

/* Fills `id` with a name that nobody else has. */
void nccl_make_name(ncclUniqueId *id);

/* Connects this rank with all others of that name and with itself: peers [n_ranks].  Collective;
 * false if some rank is gone, or does not come in a minute. */
bool nccl_meet(const ncclUniqueId *id, int rank, int n_ranks, struct NcclPeer *peers);

/* ---- nccl_transfers.c */

/* Bytes to or from a peer. */
struct NcclTransfer {
    bool sends;
    int peer;
    ncclDataType_t type;
    char *at;
    size_t n_bytes;
};

/* All of them at once, those between the same ranks in their order.  Ends the program where the two
 * ends do not agree on operation, number of bytes or type.  False: a peer is gone, or the
 * communicator was aborted. */
bool nccl_transfer(ncclComm_t comm, const char *operation, const struct NcclTransfer *transfers,
                   int n);

/* Every rank r gets out[r * out_stride ...] [n_bytes] of each rank, which goes to `in` in their
 * order; this rank's own may lie in its place already.  False as above. */
bool nccl_swap_parts(ncclComm_t comm, const char *operation, ncclDataType_t type, const void *out,
                     size_t out_stride, void *in, size_t n_bytes);

/* A rank from which something has come that nobody asked for, or -1. */
int nccl_unheard_peer(ncclComm_t comm);

#endif
