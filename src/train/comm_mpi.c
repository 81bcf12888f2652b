/* Ranks over MPI, buffers in host memory.
 *
 * Every operation is made of nonblocking ones: a sum over ranks is MPI's; a scatter_sum is a
 * reduction to each rank, a gather a broadcast from each, so that a rank sends no more than in a
 * ring, and any buffer can go in parts that an int counts.  Open MPI chooses how to reduce by sizes
 * alone, hence the same bits in every run; and it moves things only while the process is inside
 * MPI, hence the test of all requests whenever another operation starts. */
#include "train/comm_mpi.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PART_BYTES = 1 << 30 };

struct MpiState {
    MPI_Comm mpi;
    /* What was not waited for yet, and whose ticket it is, in order: [n_requests] of [capacity]. */
    MPI_Request *requests;
    CommTicket *tickets;
    int n_requests, capacity;
};

#define MPI_CALL(call)                                                                             \
    do {                                                                                           \
        int mpi_status_ = (call);                                                                  \
        TMD_CHECK(mpi_status_ == MPI_SUCCESS, "MPI error %d", mpi_status_);                        \
    } while (0)

/* ---- requests ---- */

/* Where the next request of the operation at hand goes: the one after comm->last_ticket. */
static MPI_Request *new_request(struct Comm *comm) {
    struct MpiState *state = comm->state;
    if (state->n_requests == state->capacity) {
        size_t n = (size_t)(state->capacity = 2 * state->capacity + 64);
        state->requests = xrealloc(state->requests, n * sizeof *state->requests);
        state->tickets = xrealloc(state->tickets, n * sizeof *state->tickets);
    }
    state->tickets[state->n_requests] = comm->last_ticket + 1;
    return &state->requests[state->n_requests++];
}

static void progress(struct MpiState *state) {
    int all_done;
    MPI_CALL(MPI_Testall(state->n_requests, state->requests, &all_done, MPI_STATUSES_IGNORE));
    if (all_done) state->n_requests = 0;
}

static void mpi_wait(struct Comm *comm, CommTicket ticket) {
    struct MpiState *state = comm->state;
    int n = 0;
    while (n < state->n_requests && state->tickets[n] <= ticket) n++;
    if (n == 0) return;
    MPI_CALL(MPI_Waitall(n, state->requests, MPI_STATUSES_IGNORE));
    state->n_requests -= n;
    memmove(state->requests, state->requests + n,
            (size_t)state->n_requests * sizeof *state->requests);
    memmove(state->tickets, state->tickets + n, (size_t)state->n_requests * sizeof *state->tickets);
}

static void mpi_finish(struct Comm *comm) {
    mpi_wait(comm, comm->last_ticket);
}

/* ---- operations ---- */

/* How many bytes of n_bytes go from `at` on. */
static int part_bytes(int64_t n_bytes, int64_t at) {
    return (int)(n_bytes - at < PART_BYTES ? n_bytes - at : PART_BYTES);
}

static CommTicket mpi_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    struct MpiState *state = comm->state;
    int64_t n_bytes = n_elems * (int64_t)sizeof *buffer;
    for (int64_t at = 0; at < n_bytes; at += PART_BYTES)
        MPI_CALL(MPI_Iallreduce(MPI_IN_PLACE, (char *)buffer + at,
                                part_bytes(n_bytes, at) / (int)sizeof *buffer, MPI_FLOAT, MPI_SUM,
                                state->mpi, new_request(comm)));
    progress(state);
    return comm_count_ring(comm, 2, n_bytes);
}

/* own = sum over ranks of their `mine`, on rank `root`; there `own` may be `mine`. */
static void reduce_start(struct Comm *comm, float *own, const float *mine, int64_t n_elems,
                         int root) {
    struct MpiState *state = comm->state;
    int64_t n_bytes = n_elems * (int64_t)sizeof *own;
    for (int64_t at = 0; at < n_bytes; at += PART_BYTES) {
        const void *from = (const char *)mine + at;
        if (root == comm->rank && own == mine) from = MPI_IN_PLACE;
        MPI_CALL(MPI_Ireduce(from, (char *)own + at, part_bytes(n_bytes, at) / (int)sizeof *own,
                             MPI_FLOAT, MPI_SUM, root, state->mpi, new_request(comm)));
    }
}

static CommTicket mpi_scatter_sum_start(struct Comm *comm, float *own, float *all,
                                        int64_t n_elems) {
    for (int rank = 0; rank < comm->n_ranks; rank++)
        reduce_start(comm, own, all + rank * n_elems, n_elems, rank);
    progress(comm->state);
    return comm_count_ring(comm, 1, comm->n_ranks * n_elems * (int64_t)sizeof *all);
}

static CommTicket mpi_gather_start(struct Comm *comm, void *all, const void *own, int64_t n_bytes) {
    struct MpiState *state = comm->state;
    char *place = (char *)all + comm->rank * n_bytes;
    if (place != own) memcpy(place, own, (size_t)n_bytes);
    for (int rank = 0; rank < comm->n_ranks; rank++)
        for (int64_t at = 0; at < n_bytes; at += PART_BYTES)
            MPI_CALL(MPI_Ibcast((char *)all + rank * n_bytes + at, part_bytes(n_bytes, at),
                                MPI_BYTE, rank, state->mpi, new_request(comm)));
    progress(state);
    return comm_count_ring(comm, 1, comm->n_ranks * n_bytes);
}

/* Parts between two ranks meet in the order in which they are started. */
static CommTicket mpi_exchange_start(struct Comm *comm, void *recv,
                                     const struct CommPart *recv_parts, const void *send,
                                     const struct CommPart *send_parts) {
    struct MpiState *state = comm->state;
    for (int rank = 0; rank < comm->n_ranks; rank++) {
        char *to = (char *)recv + recv_parts[rank].at;
        const char *from = (const char *)send + send_parts[rank].at;
        int64_t n_recv = recv_parts[rank].n_bytes, n_send = send_parts[rank].n_bytes;
        if (rank == comm->rank) {
            memcpy(to, from, (size_t)n_send);
            continue;
        }
        for (int64_t at = 0; at < n_recv; at += PART_BYTES)
            MPI_CALL(MPI_Irecv(to + at, part_bytes(n_recv, at), MPI_BYTE, rank, 0, state->mpi,
                               new_request(comm)));
        for (int64_t at = 0; at < n_send; at += PART_BYTES)
            MPI_CALL(MPI_Isend(from + at, part_bytes(n_send, at), MPI_BYTE, rank, 0, state->mpi,
                               new_request(comm)));
    }
    progress(state);
    return comm_count_exchange(comm, send_parts);
}

/* ---- host memory ---- */

/* Sums to one rank and broadcasts, so that every rank has the same bits whatever the algorithm. */
static void mpi_sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    MPI_Comm mpi = ((struct MpiState *)comm->state)->mpi;
    int n = (int)n_elems;
    MPI_CALL(MPI_Reduce(comm->rank ? host : MPI_IN_PLACE, host, n, MPI_DOUBLE, MPI_SUM, 0, mpi));
    MPI_CALL(MPI_Bcast(host, n, MPI_DOUBLE, 0, mpi));
}

static void mpi_broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    MPI_Comm mpi = ((struct MpiState *)comm->state)->mpi;
    for (int64_t at = 0; at < n_bytes; at += PART_BYTES)
        MPI_CALL(MPI_Bcast((char *)host + at, part_bytes(n_bytes, at), MPI_BYTE, root, mpi));
}

/* ---- beginning and end ---- */

static void end_all_ranks(int exit_code) {
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

static void mpi_free(struct Comm *comm) {
    struct MpiState *state = comm->state;
    free(state->requests);
    free(state->tickets);
    free(state);
    free(comm);
}

static void mpi_group_destroy(struct Comm *comm) {
    MPI_CALL(MPI_Comm_free(&((struct MpiState *)comm->state)->mpi));
    mpi_free(comm);
}

static void mpi_world_destroy(struct Comm *comm) {
    fatal_set_handler(comm->rank, NULL);
    MPI_Finalize();
    mpi_free(comm);
}

/* A rank's place among those of its host. */
static void count_local(MPI_Comm mpi, int *local_rank, int *n_local) {
    MPI_Comm host;
    MPI_CALL(MPI_Comm_split_type(mpi, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host));
    MPI_CALL(MPI_Comm_rank(host, local_rank));
    MPI_CALL(MPI_Comm_size(host, n_local));
    MPI_CALL(MPI_Comm_free(&host));
}

static struct Comm *mpi_split(struct Comm *comm, int n_ranks, int stride);

/* n_local: how many ranks of `mpi` this host has. */
static struct Comm *make(MPI_Comm mpi, void (*destroy)(struct Comm *comm), int *n_local) {
    struct MpiState *state = xcalloc(sizeof *state);
    struct Comm *comm = xcalloc(sizeof *comm);
    state->mpi = mpi;
    *comm = (struct Comm){.name = "mpi",
                          .state = state,
                          .sum_start = mpi_sum_start,
                          .scatter_sum_start = mpi_scatter_sum_start,
                          .gather_start = mpi_gather_start,
                          .exchange_start = mpi_exchange_start,
                          .wait = mpi_wait,
                          .finish = mpi_finish,
                          .sum_f64 = mpi_sum_f64,
                          .broadcast = mpi_broadcast,
                          .split = mpi_split,
                          .destroy = destroy};
    MPI_CALL(MPI_Comm_rank(mpi, &comm->rank));
    MPI_CALL(MPI_Comm_size(mpi, &comm->n_ranks));
    count_local(mpi, &comm->local_rank, n_local);
    return comm;
}

static struct Comm *mpi_split(struct Comm *comm, int n_ranks, int stride) {
    MPI_Comm mpi = ((struct MpiState *)comm->state)->mpi, group;
    int n_local;
    MPI_CALL(MPI_Comm_split(mpi, comm_split_group(comm, n_ranks, stride), comm->rank, &group));
    return make(group, mpi_group_destroy, &n_local);
}

struct Comm *comm_mpi_create(void) {
    int provided, n_local;
    MPI_CALL(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    struct Comm *comm = make(MPI_COMM_WORLD, mpi_world_destroy, &n_local);
    fatal_set_handler(comm->rank, end_all_ranks);
    comm_share_threads(n_local);
    return comm;
}
