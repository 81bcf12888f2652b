/* What ranks send each other of one role's weights and gradients while a step runs.  It is driven
 * by the hooks of the role's units (struct UnitHooks of model/weights.h), in three kinds, by
 * parallel.shard (ZeRO-1 and ZeRO-3: Rajbhandari et al., "ZeRO", SC 2020):
 *
 *     none       traffic_whole.c: a unit's gradient is summed over all ranks as soon as it is
 *                complete
 *     optimizer  traffic_optimizer.c, ZeRO-1: the sum of a unit's gradient goes to the ranks in
 *                shares; after the update, the new weights are gathered.  The first pass after an
 *                update, of whichever role, waits for each unit only when it needs it, while the
 *                others' gathers go on.  A later pass waits for all units of its role first; they
 *                then stay in place, so that a device may learn the pass (run_often of backend.h)
 *     full       traffic_full.c, ZeRO-3: a unit's weights are gathered each time they are needed,
 *                those of the next unit already while this one computes; its gradient is summed,
 *                and its memory given to another unit, when backward leaves it
 *
 * In the end weights->grad, the rank's share, holds the summed gradients.  Replicas sum their
 * shares.
 *
 * The calls of an iteration, in their order:
 *
 *     begin        gradients become zero
 *     (passes)
 *     sum_rest     begins the sums of units that backward has not announced as complete
 *     sum_finish   waits; afterwards the share's gradient is that of all ranks
 *     (update of the share)
 *     updated      brings what matrix products read up to date with the masters */
#ifndef TMD_UNIT_TRAFFIC_H
#define TMD_UNIT_TRAFFIC_H

#include "model/weights.h"
#include "train/parallel.h"

struct UnitTraffic {
    void *state;
    int64_t n_bytes; /* of device memory, beside the weights' own */
    void (*begin)(void *state);
    void (*sum_rest)(void *state);
    void (*sum_finish)(void *state);
    void (*updated)(void *state);
    void (*close)(void *state);
};

/* All three set the hooks of `weights`, which must not move afterwards; frozen views have to be
 * made anew (networks_make_frozen_views). */
void unit_traffic_whole(struct UnitTraffic *traffic, const struct Parallel *parallel,
                        struct Weights *weights);
/* Whether any role has begun a pass since weights were last gathered; shared by all roles. */
struct PassWatch {
    bool begun;
};
/* `lender`: traffic of the role whose gradient this one borrows (weights_borrow_grad), or NULL. */
void unit_traffic_optimizer(struct UnitTraffic *traffic, const struct Parallel *parallel,
                            struct PassWatch *passes, struct Weights *weights,
                            const struct UnitTraffic *lender);
/* `ring` (unit_ring.h) is that of all roles. */
struct UnitRing;
void unit_traffic_full(struct UnitTraffic *traffic, const struct Parallel *parallel,
                       struct UnitRing *ring, struct Weights *weights);

/* ---- for traffic_optimizer.c and traffic_full.c, whose ranks hold shares ---- */

/* Elements of a whole piece, padding included. */
static inline int64_t whole_piece_elems(const struct Weights *weights, int unit, enum Piece piece) {
    return weights->share.n_shares * weights->pieces[unit][piece].n_slice;
}
/* Starts to gather a unit's weights from all shares into `memory`. */
CommTicket whole_unit_gather(const struct Weights *weights, int unit,
                             const struct UnitMemory *memory, struct Comm *shares);
/* Starts own [slices of both pieces] = this share's part of the sum over ranks of memory->grad,
 * which is overwritten. */
CommTicket whole_unit_reduce(const struct Weights *weights, int unit,
                             const struct UnitMemory *memory, float *own, struct Comm *shares);
/* Elements of `own`.  A unit has as many in weights->grad, from pieces[unit][PIECE_F32].at on. */
int64_t own_unit_elems(const struct Weights *weights, int unit);

#endif
