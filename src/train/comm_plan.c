/* Operations only move a clock: the link is busy until they would be done, and waiting for them
 * moves the GPU's clock on. */
#include "train/comm_plan.h"

#include <math.h>
#include <stdlib.h>

/* What split communicators share. */
struct PlanWire {
    const struct Backend *be;
    struct PlanLink link;
    double free_at; /* on the clock below */
    double waited;  /* so far, all resets */
};

struct PlanState {
    struct PlanWire *wire;
    struct PlanState *parent;  /* it was split from, NULL: none */
    struct Comm *alone;        /* of a single rank */
    int stride;                /* of its ranks among all GPUs */
    double ends[COMM_TICKETS]; /* when ticket t is done: ends[t % COMM_TICKETS] */
    struct PlanTraffic traffic;
};

/* The GPU's computing and its waiting. */
static double now(const struct PlanWire *wire) {
    return backend_plan_now(wire->be) + wire->waited;
}

static CommTicket book(struct PlanState *state, CommTicket ticket, double buffer_bytes,
                       double sent_bytes, double seconds) {
    struct PlanWire *wire = state->wire;
    wire->free_at = fmax(wire->free_at, now(wire)) + seconds;
    state->ends[ticket % COMM_TICKETS] = wire->free_at;
    for (struct PlanState *s = state; s; s = s->parent) {
        s->traffic.messages++;
        s->traffic.buffer_bytes += buffer_bytes;
        s->traffic.sent_bytes += sent_bytes;
        s->traffic.link_seconds += seconds;
    }
    return ticket;
}

static CommTicket book_ring(struct Comm *comm, int rounds, int64_t n_bytes) {
    struct PlanState *state = comm->state;
    double sent = plan_ring_bytes(rounds, (double)n_bytes, comm->n_ranks);
    double seconds = plan_ring_seconds(&state->wire->link, sent, comm->n_ranks, state->stride);
    return book(state, comm_count_ring(comm, rounds, n_bytes), (double)n_bytes, sent, seconds);
}

static CommTicket plan_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    struct Comm *alone = ((struct PlanState *)comm->state)->alone;
    if (alone) return alone->sum_start(alone, buffer, n_elems);
    return book_ring(comm, 2, n_elems * (int64_t)sizeof *buffer);
}

static CommTicket plan_scatter_sum_start(struct Comm *comm, float *own, float *all,
                                         int64_t n_elems) {
    struct Comm *alone = ((struct PlanState *)comm->state)->alone;
    if (alone) return alone->scatter_sum_start(alone, own, all, n_elems);
    return book_ring(comm, 1, comm->n_ranks * n_elems * (int64_t)sizeof *all);
}

static CommTicket plan_gather_start(struct Comm *comm, void *all, const void *own,
                                    int64_t n_bytes) {
    struct Comm *alone = ((struct PlanState *)comm->state)->alone;
    if (alone) return alone->gather_start(alone, all, own, n_bytes);
    return book_ring(comm, 1, comm->n_ranks * n_bytes);
}

static CommTicket plan_exchange_start(struct Comm *comm, void *recv,
                                      const struct CommPart *recv_parts, const void *send,
                                      const struct CommPart *send_parts) {
    struct PlanState *state = comm->state;
    struct Comm *alone = state->alone;
    if (alone) return alone->exchange_start(alone, recv, recv_parts, send, send_parts);
    const struct PlanLink *link = &state->wire->link;
    double near = 0.0, far = 0.0;
    for (int rank = 1; rank < comm->n_ranks; rank++)
        if ((int64_t)rank * state->stride < link->node_gpus)
            near += (double)send_parts[rank].n_bytes;
        else
            far += (double)send_parts[rank].n_bytes;
    return book(state, comm_count_exchange(comm, send_parts),
                (double)send_parts[0].n_bytes + near + far, near + far,
                plan_exchange_seconds(link, near, far));
}

static void plan_wait(struct Comm *comm, CommTicket ticket) {
    struct PlanState *state = comm->state;
    struct PlanWire *wire = state->wire;
    if (!ticket) return;
    double exposed = fmax(state->ends[ticket % COMM_TICKETS] - now(wire), 0.0);
    wire->waited += exposed;
    for (struct PlanState *s = state; s; s = s->parent) s->traffic.exposed_seconds += exposed;
}

static void plan_finish(struct Comm *comm) {
    plan_wait(comm, comm->last_ticket);
}

static void plan_sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    (void)comm, (void)host, (void)n_elems;
}

static void plan_broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    (void)comm, (void)host, (void)n_bytes, (void)root;
}

static void plan_destroy(struct Comm *comm) {
    struct PlanState *state = comm->state;
    if (state->alone) state->alone->destroy(state->alone);
    if (!state->parent) free(state->wire);
    free(state);
    free(comm);
}

static struct Comm *plan_split(struct Comm *comm, int n_ranks, int stride);

static struct Comm *make(struct PlanWire *wire, struct PlanState *parent, int n_ranks, int stride) {
    struct PlanState *state = xcalloc(sizeof *state);
    struct Comm *comm = xcalloc(sizeof *comm);
    *state = (struct PlanState){.wire = wire, .parent = parent, .stride = stride};
    if (n_ranks == 1) state->alone = comm_self_create(wire->be);
    *comm = (struct Comm){.name = "plan",
                          .n_ranks = n_ranks,
                          .state = state,
                          .sum_start = plan_sum_start,
                          .scatter_sum_start = plan_scatter_sum_start,
                          .gather_start = plan_gather_start,
                          .exchange_start = plan_exchange_start,
                          .wait = plan_wait,
                          .finish = plan_finish,
                          .sum_f64 = plan_sum_f64,
                          .broadcast = plan_broadcast,
                          .split = plan_split,
                          .destroy = plan_destroy};
    return comm;
}

static struct Comm *plan_split(struct Comm *comm, int n_ranks, int stride) {
    struct PlanState *state = comm->state;
    comm_split_group(comm, n_ranks, stride);
    return make(state->wire, state, n_ranks, state->stride * stride);
}

struct Comm *comm_plan_create(const struct Backend *be, int n_ranks, struct PlanLink link) {
    struct PlanWire *wire = xcalloc(sizeof *wire);
    *wire = (struct PlanWire){.be = be, .link = link};
    return make(wire, NULL, n_ranks, 1);
}

struct PlanTraffic comm_plan_traffic(const struct Comm *comm) {
    return ((const struct PlanState *)comm->state)->traffic;
}

void comm_plan_reset(struct Comm *comm) {
    struct PlanState *state = comm->state;
    state->traffic = (struct PlanTraffic){0};
}
