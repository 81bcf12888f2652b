/* What each rank says, heard by all: host memory, over any communicator. */
#ifndef TMD_COMM_GATHER_H
#define TMD_COMM_GATHER_H

#include "train/comm.h"

/* all[r * n_bytes ...] = rank r's own [n_bytes].  One broadcast for each rank: for set-up, not for
 * steps. Collective. */
void comm_gather_host(struct Comm *comm, void *all, const void *own, int64_t n_bytes);

#endif
