#include "train/comm_plan.h"

#include <math.h>
#include <stdlib.h>

struct PlanState {
    const struct Backend *be;
    struct PlanLink link;
    double link_free_at; /* on the clock below */
    double waited;       /* so far, all resets */
    struct PlanTraffic traffic;
};

/* The GPU's computing and its waiting. */
static double now(const struct PlanState *state) {
    return backend_plan_now(state->be) + state->waited;
}

static void plan_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    struct PlanState *state = comm->state;
    struct PlanTraffic *traffic = &state->traffic;
    double n_bytes = (double)n_elems * (double)sizeof *buffer;
    if (comm->n_ranks == 1) return;
    double seconds = plan_sum_seconds(&state->link, n_bytes, comm->n_ranks);
    state->link_free_at = fmax(state->link_free_at, now(state)) + seconds;
    traffic->messages++;
    traffic->buffer_bytes += n_bytes;
    traffic->sent_bytes += plan_sum_bytes(n_bytes, comm->n_ranks);
    traffic->link_seconds += seconds;
}

static void plan_sums_finish(struct Comm *comm) {
    struct PlanState *state = comm->state;
    double exposed = fmax(state->link_free_at - now(state), 0.0);
    state->waited += exposed;
    state->traffic.exposed_seconds += exposed;
}

static void plan_sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    (void)comm, (void)host, (void)n_elems;
}

static void plan_broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    (void)comm, (void)host, (void)n_bytes, (void)root;
}

static void plan_destroy(struct Comm *comm) {
    free(comm->state);
    free(comm);
}

struct Comm *comm_plan_create(const struct Backend *be, int n_ranks, struct PlanLink link) {
    struct PlanState *state = xcalloc(sizeof *state);
    struct Comm *comm = xcalloc(sizeof *comm);
    *state = (struct PlanState){.be = be, .link = link};
    *comm = (struct Comm){.name = "plan",
                          .n_ranks = n_ranks,
                          .state = state,
                          .sum_start = plan_sum_start,
                          .sums_finish = plan_sums_finish,
                          .sum_f64 = plan_sum_f64,
                          .broadcast = plan_broadcast,
                          .destroy = plan_destroy};
    return comm;
}

struct PlanTraffic comm_plan_traffic(const struct Comm *comm) {
    return ((const struct PlanState *)comm->state)->traffic;
}

void comm_plan_reset(struct Comm *comm) {
    struct PlanState *state = comm->state;
    state->traffic = (struct PlanTraffic){0};
}
