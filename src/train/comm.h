/* Ranks: one table of collective operations, and who implements it.
 *
 * `self` is one process alone.  `mpi` is for host memory, over MPI.  `nccl` (comm_nccl.h) sums in the
 * memory of CUDA devices.  All ranks call the same operations in the same order.  This module and its
 * implementations are the only ones that see MPI and NCCL. */
#ifndef TMD_COMM_H
#define TMD_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct Comm {
    const char *name;
    int rank, n_ranks;
    int local_rank; /* among the ranks of this host, from 0 */
    void *state;
    /* Begins buffer[i] = sum over ranks, float32 in the backend's memory.  The buffer must not be
     * touched before sums_finish. */
    void (*sum_start)(struct Comm *comm, float *buffer, int64_t n_elems);
    /* Ends all sums begun: operations of the backend that follow see them.  The order of summation is
     * fixed for a number of ranks. */
    void (*sums_finish)(struct Comm *comm);
    /* host[i] = sum over ranks, on every rank the same bits. */
    void (*sum_f64)(struct Comm *comm, double *host, int64_t n_elems);
    void (*broadcast)(struct Comm *comm, void *host, int64_t n_bytes, int root);
    /* Ends the communicator, and MPI. */
    void (*destroy)(struct Comm *comm);
};

struct Comm *comm_self_create(void);

/* MPI when the process was started by mpirun or srun (one of their environment variables is there),
 * else `self`.  Sets what fatal errors do, and the OpenMP threads of this rank: OMP_NUM_THREADS if given,
 * else an even share of the processors of this host. */
struct Comm *comm_create(void);

/* Whether all ranks are fine.  The lowest rank that is not prints its error; every rank gets that
 * one's exit code in *exit_code.  Collective. */
bool comm_agree(struct Comm *comm, bool ok, const struct Error *err, int *exit_code);

/* An error that only this rank knows of, in the middle of a step: prints it and ends all ranks. */
_Noreturn void comm_fail(struct Comm *comm, const struct Error *err);

#endif
