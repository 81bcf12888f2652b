/* Gradients travelling while backward still runs: each unit's sum over ranks begins as soon as the
 * model says that the unit's gradient is complete. */
#ifndef TMD_GRAD_SYNC_H
#define TMD_GRAD_SYNC_H

#include "train/comm.h"
#include "train/networks.h"

enum { GRAD_SYNC_MAX_UNITS = 128 };

struct GradSync {
    struct Comm *comm;
    struct Weights *weights;
    bool started[GRAD_SYNC_MAX_UNITS];
};

/* Hooks into the weights of one trained role. */
void grad_sync_attach(struct GradSync *sync, struct Comm *comm, struct Weights *weights);
/* Before an iteration's backward. */
void grad_sync_begin(struct GradSync *sync);
/* Starts what backward did not announce; after comm->sums_finish all gradients are summed. */
void grad_sync_rest(struct GradSync *sync);

#endif
