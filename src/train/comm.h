/* Ranks: one table of collective operations, and who implements it.
 *
 *     self   one process alone
 *     mpi    host memory, over MPI
 *     tcp    the same without MPI (comm_tcp.h)
 *     nccl   the memory of CUDA devices (comm_nccl.h)
 *     plan   sends nothing, and books what would be sent (comm_plan.h)
 *
 * All ranks of a communicator call the same operations in the same order; so do ranks that share
 * several communicators.  This module and its implementations are the only ones that see MPI and
 * NCCL.
 *
 * Operations on device memory run in parallel with the backend's.  `..._start` begins one after all
 * that the backend was asked to do before, and returns a ticket.  Its buffers must not be touched
 * until `wait` of that ticket; backend operations called after the wait see the result.  Tickets
 * count up from 1 within one communicator, and are completed in that order.  Within run_often
 * (backend.h) nothing may be started or waited for. */
#ifndef TMD_COMM_H
#define TMD_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct Backend;

typedef int64_t CommTicket;

/* How many tickets are told apart: to wait for one that is further behind the last may mean to wait
 * for a later one, too. */
enum { COMM_TICKETS = 256 };

/* A part of a buffer that goes to, or comes from, one rank. */
struct CommPart {
    int64_t at, n_bytes; /* from the buffer's start; multiples of 2 */
};

struct Comm {
    const char *name;
    int rank, n_ranks;
    int local_rank; /* among the ranks of this host, from 0 */
    void *state;
    CommTicket last_ticket; /* 0: none so far */

    /* buffer[i] = sum over ranks.  For a given number of ranks the order of summation is fixed. */
    CommTicket (*sum_start)(struct Comm *comm, float *buffer, int64_t n_elems);
    /* own[i] = sum over ranks of their all[rank * n_elems + i], in a fixed order too.  `own` may be
     * the rank's place in `all`; all [n_ranks * n_elems] is overwritten. */
    CommTicket (*scatter_sum_start)(struct Comm *comm, float *own, float *all, int64_t n_elems);
    /* all[r * n_bytes ...] = rank r's own [n_bytes]; `own` may be the rank's place in `all`. */
    CommTicket (*gather_start)(struct Comm *comm, void *all, const void *own, int64_t n_bytes);
    /* Rank r gets the bytes `send_parts[r]` of `send`, and what it sends goes to `recv_parts[r]` of
     * `recv`; parts [n_ranks], sizes agree between sender and receiver, 0 is fine.  What is
     * received overlaps neither itself nor what is sent. */
    CommTicket (*exchange_start)(struct Comm *comm, void *recv, const struct CommPart *recv_parts,
                                 const void *send, const struct CommPart *send_parts);
    /* Waits for all operations up to `ticket`; 0: for none. */
    void (*wait)(struct Comm *comm, CommTicket ticket);
    /* Waits for the last ticket, on the host, too.  If the network broke it ends all ranks. */
    void (*finish)(struct Comm *comm);

    /* host[i] = sum over ranks, on every rank the same bits. */
    void (*sum_f64)(struct Comm *comm, double *host, int64_t n_elems);
    void (*broadcast)(struct Comm *comm, void *host, int64_t n_bytes, int root);
    /* Divides the ranks into groups of n_ranks, `stride` apart, and returns the communicator of
     * this rank's group.  Of four ranks, n_ranks 2 and stride 1 make {0, 1} {2, 3}; 2 and 2 make
     * {0, 2} {1, 3}.  n_ranks * stride must divide the number of ranks.  Collective; nothing may be
     * under way.  The caller destroys it before this one. */
    struct Comm *(*split)(struct Comm *comm, int n_ranks, int stride);
    /* Bytes that operations on device memory have put on the network from this rank, counted as a
     * ring does: a sum 2 (n - 1) / n of its buffer, scatter_sum and gather (n - 1) / n of `all`, an
     * exchange what goes to other ranks. */
    int64_t sent_bytes;
    /* Frees the communicator; for the one that comm_create gave, also ends MPI. */
    void (*destroy)(struct Comm *comm);
};

/* `be`, for copies in its memory, outlives it; NULL: no operation on device memory is called. */
struct Comm *comm_self_create(const struct Backend *be);

/* TCP when $TMD_RENDEZVOUS is set (rendezvous.h); MPI when the process was started by mpirun or
 * srun (one of their environment variables is there); else `self`.  NULL: ranks do not find each
 * other.  Sets what fatal errors do, and the OpenMP threads of this rank: OMP_NUM_THREADS if given,
 * else an even share of the processors of this host. */
struct Comm *comm_create(struct Error *err);

/* The communicator of the same ranks for operations on `be`'s memory: `nccl` on CUDA devices, which
 * leaves to `host` what happens in host memory; for one rank `self`; for host memory `host`.  If it
 * is another than `host` the caller destroys it first. */
struct Comm *comm_for_backend(struct Comm *host, const struct Backend *be);

/* Whether all ranks are fine.  If not, *err becomes that of the lowest rank that is not; nothing is
 * printed.  Collective. */
bool comm_share_error(struct Comm *comm, bool ok, struct Error *err);

/* The same, where a run ends: the rank that is not prints its error, and every rank gets that one's
 * exit code in *exit_code. */
bool comm_agree(struct Comm *comm, bool ok, const struct Error *err, int *exit_code);

/* An error that only this rank knows of, in the middle of a step: prints it and ends all ranks. */
_Noreturn void comm_fail(struct Comm *comm, const struct Error *err);

/* ---- for those who implement it ---- */

/* Counts an operation in last_ticket and sent_bytes; returns its ticket.  Ring: a buffer of n_bytes
 * goes round, of which each rank sends all but one of n_ranks parts, `rounds` times. */
CommTicket comm_count_ring(struct Comm *comm, int rounds, int64_t n_bytes);
CommTicket comm_count_exchange(struct Comm *comm, const struct CommPart *send_parts);

/* Sets the OpenMP threads of this rank, one of n_local on its host, as comm_create says. */
void comm_share_threads(int n_local);

/* Which of the groups of a split this rank belongs to, from 0; checks that they come out even. */
int comm_split_group(const struct Comm *comm, int n_ranks, int stride);

#endif
