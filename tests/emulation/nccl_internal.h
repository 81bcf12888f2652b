/* The inside of the emulated NCCL: communicators (nccl.c) and what they are given to do
 * (nccl_operations.c). */
#ifndef TMD_EMULATED_NCCL_INTERNAL_H
#define TMD_EMULATED_NCCL_INTERNAL_H

#include <mpi.h>
#include <nccl.h>

#include "emulation.h"

struct ncclComm {
    MPI_Comm mpi; /* of its own: its messages never meet those of the program */
    int n_ranks, rank;
    int n_outstanding;   /* operations that were enqueued and have not happened */
    ncclResult_t broken; /* ncclSuccess: not */
};

/* Whether rank 0's bytes are everybody's; collective. */
int emulated_nccl_agrees(ncclComm_t comm, const void *mine, int n_bytes);

#endif
