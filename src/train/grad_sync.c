#include "train/grad_sync.h"

#include <string.h>

static void start(struct GradSync *sync, int unit) {
    const struct UnitDesc *desc = &sync->weights->table->units[unit];
    TMD_CHECK(!sync->started[unit], "the gradient of unit '%s' was announced twice", desc->name);
    sync->started[unit] = true;
    sync->comm->sum_start(sync->comm, sync->weights->grad + desc->offset, desc->n_elems);
}

static void on_grad_ready(void *context, int unit) {
    start(context, unit);
}

void grad_sync_attach(struct GradSync *sync, struct Comm *comm, struct Weights *weights) {
    *sync = (struct GradSync){.comm = comm, .weights = weights};
    TMD_CHECK(weights->table->n_units <= GRAD_SYNC_MAX_UNITS, "%d units", weights->table->n_units);
    weights->hooks.context = sync;
    weights->hooks.grad_ready = on_grad_ready;
}

void grad_sync_begin(struct GradSync *sync) {
    memset(sync->started, 0, sizeof sync->started);
}

void grad_sync_rest(struct GradSync *sync) {
    for (int unit = 0; unit < sync->weights->table->n_units; unit++)
        if (!sync->started[unit]) start(sync, unit);
}
