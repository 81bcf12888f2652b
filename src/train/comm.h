/* Ranks: one table of collective operations, and who implements it.
 *
 * `self` is one process alone.  `mpi` is for host memory, over MPI; `tcp` (comm_tcp.h) for the same
 * without MPI.  `nccl` (comm_nccl.h) works in the memory of CUDA devices.  All ranks of a
 * communicator call the same operations in the same order; so do ranks that share several
 * communicators.  This module and its implementations are the only ones that see MPI and NCCL.
 *
 * Operations on device memory (float32 and bytes in the backend's memory) run beside the
 * computation: `..._start` begins one behind what the backend was asked before, and returns its
 * ticket; its buffers must not be touched until `wait` of that ticket, behind which the backend's
 * operations see it done.  Tickets count up from 1 within one communicator, and are done in that
 * order.  Within run_often (backend.h) none is begun or waited for. */
#ifndef TMD_COMM_H
#define TMD_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct Backend;

typedef int64_t CommTicket;

/* Whoever waits for a ticket that is so many behind the last may wait for a later one too. */
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

    /* buffer[i] = sum over ranks.  The order of summation is fixed for a number of ranks. */
    CommTicket (*sum_start)(struct Comm *comm, float *buffer, int64_t n_elems);
    /* own[i] = sum over ranks of their all[rank * n_elems + i], in a fixed order too; `own` may lie
     * at its place in `all`, and all [n_ranks * n_elems] is spoilt. */
    CommTicket (*scatter_sum_start)(struct Comm *comm, float *own, float *all, int64_t n_elems);
    /* all[r * n_bytes ...] = rank r's own [n_bytes]; `own` may lie at its place in `all`. */
    CommTicket (*gather_start)(struct Comm *comm, void *all, const void *own, int64_t n_bytes);
    /* Rank r gets the bytes `send_parts[r]` of `send`, and what it sends goes to `recv_parts[r]` of
     * `recv`; parts [n_ranks], sizes agree between sender and receiver, 0 is fine.  What is
     * received overlaps neither itself nor what is sent. */
    CommTicket (*exchange_start)(struct Comm *comm, void *recv, const struct CommPart *recv_parts,
                                 const void *send, const struct CommPart *send_parts);
    /* Until the operations up to `ticket` are done, 0: none. */
    void (*wait)(struct Comm *comm, CommTicket ticket);
    /* wait for the last ticket; the host, too, sees the network come to rest, or ends all ranks if
     * it broke. */
    void (*finish)(struct Comm *comm);

    /* host[i] = sum over ranks, on every rank the same bits. */
    void (*sum_f64)(struct Comm *comm, double *host, int64_t n_elems);
    void (*broadcast)(struct Comm *comm, void *host, int64_t n_bytes, int root);
    /* A communicator of n_ranks ranks, `stride` apart, of which this is one: four ranks fall into
     * {0, 1} {2, 3} by 2 and 1, into {0, 2} {1, 3} by 2 and 2.  n_ranks * stride divides the number
     * of ranks.  Collective, when nothing is under way; the caller destroys it before this one. */
    struct Comm *(*split)(struct Comm *comm, int n_ranks, int stride);
    /* Bytes that operations on device memory have put on the network from this rank, counted as a
     * ring does: a sum 2 (n - 1) / n of its buffer, scatter_sum and gather (n - 1) / n of `all`, an
     * exchange what goes to other ranks. */
    int64_t sent_bytes;
    /* Ends the communicator; one that comm_create gave, and MPI with it. */
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
