/* Every rank has the whole role: gradients are summed over all of them. */
#include <stdlib.h>

#include "error.h"
#include "train/unit_traffic.h"

struct WholeTraffic {
    struct Comm *world;
    struct Weights *weights;
    bool *begun; /* [n_units] */
};

static void begin_sum(struct WholeTraffic *t, int unit) {
    const struct Weights *w = t->weights;
    TMD_CHECK(!t->begun[unit], "the gradient of unit '%s' was announced twice",
              w->table->units[unit].name);
    t->begun[unit] = true;
    if (t->world->n_ranks > 1)
        t->world->sum_start(t->world, w->grad + w->pieces[unit][PIECE_F32].at,
                            own_unit_elems(w, unit));
}

static void on_grad_ready(void *context, int unit) {
    begin_sum(context, unit);
}

static void begin(void *state) {
    struct WholeTraffic *t = state;
    const struct Weights *w = t->weights;
    for (int unit = 0; unit < w->table->n_units; unit++) t->begun[unit] = false;
    w->be->zero(w->be, w->grad, w->n_elems * (int64_t)sizeof(float));
}

static void sum_rest(void *state) {
    struct WholeTraffic *t = state;
    for (int unit = 0; unit < t->weights->table->n_units; unit++)
        if (!t->begun[unit]) begin_sum(t, unit);
}

static void sum_finish(void *state) {
    struct WholeTraffic *t = state;
    t->world->finish(t->world);
}

static void updated(void *state) {
    (void)state;
}

static void close_traffic(void *state) {
    struct WholeTraffic *t = state;
    free(t->begun);
    free(t);
}

void unit_traffic_whole(struct UnitTraffic *traffic, const struct Parallel *parallel,
                        struct Weights *weights) {
    struct WholeTraffic *t = xcalloc(sizeof *t);
    *t = (struct WholeTraffic){.world = parallel->world,
                               .weights = weights,
                               .begun = xcalloc((size_t)weights->table->n_units * sizeof *t->begun)};
    weights->hooks = (struct UnitHooks){.context = t, .grad_ready = on_grad_ready};
    *traffic = (struct UnitTraffic){t, 0, begin, sum_rest, sum_finish, updated, close_traffic};
}
