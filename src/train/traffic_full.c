/* Every rank has its share of the role and nothing else; whole units are in unit_ring.h's few
 * slots. */
#include <stdlib.h>

#include "error.h"
#include "train/unit_ring.h"
#include "train/unit_traffic.h"

struct FullTraffic {
    const struct Parallel *parallel;
    struct UnitRing *ring;
    struct Weights *weights;
};

static void on_acquire(void *context, int unit, bool backward) {
    struct FullTraffic *t = context;
    unit_ring_acquire(t->ring, t->weights, unit, backward);
}

static void on_release(void *context, int unit) {
    struct FullTraffic *t = context;
    unit_ring_release(t->ring, t->weights, unit);
}

static void on_grad_ready(void *context, int unit) {
    struct FullTraffic *t = context;
    unit_ring_sum(t->ring, t->weights, unit);
}

static void begin(void *state) {
    struct FullTraffic *t = state;
    const struct Weights *w = t->weights;
    unit_ring_drop_gradients(t->ring, t->weights);
    w->be->zero(w->be, w->grad, w->n_elems * (int64_t)sizeof(float));
}

static void sum_rest(void *state) {
    struct FullTraffic *t = state;
    unit_ring_sum_all(t->ring, t->weights);
}

/* Also waits for gathers of units that nobody came to use: they read masters, which the update
 * changes. */
static void sum_finish(void *state) {
    struct FullTraffic *t = state;
    struct Comm *replicas = t->parallel->replicas;
    t->parallel->shares->finish(t->parallel->shares);
    if (!replicas) return;
    replicas->sum_start(replicas, t->weights->grad, t->weights->n_elems);
    replicas->finish(replicas);
}

static void updated(void *state) {
    struct FullTraffic *t = state;
    unit_ring_forget(t->ring, t->weights);
}

static void close_traffic(void *state) {
    free(state);
}

void unit_traffic_full(struct UnitTraffic *traffic, const struct Parallel *parallel,
                       struct UnitRing *ring, struct Weights *weights) {
    struct FullTraffic *t = xcalloc(sizeof *t);
    *t = (struct FullTraffic){parallel, ring, weights};
    weights->hooks = (struct UnitHooks){
        .context = t, .acquire = on_acquire, .release = on_release, .grad_ready = on_grad_ready};
    *traffic = (struct UnitTraffic){t, 0, begin, sum_rest, sum_finish, updated, close_traffic};
}
