/* One process alone: what the operations move stays in its memory. */
#include <stdlib.h>

#include "kernels/backend.h"
#include "train/comm.h"

/* Behind what the backend was asked before, and before what follows: nobody need wait for it. */
static void copy(const struct Comm *comm, void *to, const void *from, int64_t n_bytes) {
    const struct Backend *be = comm->state;
    TMD_CHECK(be, "a communicator of host memory was asked to copy in device memory");
    if (to != from && n_bytes) be->copy(be, to, from, n_bytes);
}

static CommTicket self_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    (void)buffer, (void)n_elems;
    return ++comm->last_ticket;
}

static CommTicket self_scatter_sum_start(struct Comm *comm, float *own, float *all,
                                         int64_t n_elems) {
    copy(comm, own, all, n_elems * (int64_t)sizeof *all);
    return ++comm->last_ticket;
}

static CommTicket self_gather_start(struct Comm *comm, void *all, const void *own,
                                    int64_t n_bytes) {
    copy(comm, all, own, n_bytes);
    return ++comm->last_ticket;
}

static CommTicket self_exchange_start(struct Comm *comm, void *recv,
                                      const struct CommPart *recv_parts, const void *send,
                                      const struct CommPart *send_parts) {
    copy(comm, (char *)recv + recv_parts->at, (const char *)send + send_parts->at,
         send_parts->n_bytes);
    return ++comm->last_ticket;
}

static void self_wait(struct Comm *comm, CommTicket ticket) {
    (void)comm, (void)ticket;
}

static void self_finish(struct Comm *comm) {
    (void)comm;
}

static void self_sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    (void)comm, (void)host, (void)n_elems;
}

static void self_broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    (void)comm, (void)host, (void)n_bytes, (void)root;
}

static struct Comm *self_split(struct Comm *comm, int n_ranks, int stride) {
    comm_split_group(comm, n_ranks, stride);
    return comm_self_create(comm->state);
}

static void self_destroy(struct Comm *comm) {
    free(comm);
}

struct Comm *comm_self_create(const struct Backend *be) {
    struct Comm *comm = xcalloc(sizeof *comm);
    *comm = (struct Comm){.name = "self",
                          .n_ranks = 1,
                          .state = (void *)(uintptr_t)be,
                          .sum_start = self_sum_start,
                          .scatter_sum_start = self_scatter_sum_start,
                          .gather_start = self_gather_start,
                          .exchange_start = self_exchange_start,
                          .wait = self_wait,
                          .finish = self_finish,
                          .sum_f64 = self_sum_f64,
                          .broadcast = self_broadcast,
                          .split = self_split,
                          .destroy = self_destroy};
    return comm;
}
