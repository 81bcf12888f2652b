/* Ranks over TCP, buffers in host memory: for launches without MPI (rendezvous.h).
 *
 * All goes through rank 0, so that rates fall with the number of ranks: it is for what hosts tell
 * each other, such as NCCL's unique id, for a few ranks without devices, and for tests.  Every
 * operation is done when it has started.  Sums add the ranks in their order.
 *
 * A rank that is gone ends all others when they next ask for an operation; each says which it was.
 */
#ifndef TMD_COMM_TCP_H
#define TMD_COMM_TCP_H

#include "train/comm.h"

/* Meets the other ranks that the environment speaks of.  NULL: it is wrong, or somebody did not
 * come. */
struct Comm *comm_tcp_create(struct Error *err);

#endif
