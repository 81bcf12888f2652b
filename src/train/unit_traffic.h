/* What ranks send each other of one role's weights and gradients while a step runs, from the hooks of
 * its units (model/weights.h).  Three kinds, by parallel.shard:
 *
 *     none       a unit's gradient is summed over all ranks as soon as it is complete
 *     optimizer  each rank sums its share of it; after the update the new weights are gathered
 *                (ZeRO-1; Rajbhandari et al., "ZeRO", 2020).  The first pass behind that, of whichever
 *                role, waits for a unit when it comes to it, and the gathers of all others run beside
 *                it; later passes wait for a role as a whole, which then stays for a device to learn
 *     full       a unit's weights are gathered each time they are needed, the next unit's already
 *                during this one's work, and its gradient is summed and let go when backward leaves it
 *                (ZeRO-3)
 *
 * Summed gradients lie in weights->grad, the rank's share.  Replicas sum their shares at the end.
 *
 *     begin        gradients become zero
 *     (passes)
 *     sum_rest     what backward has not announced is begun, in every role that the step trains
 *     sum_finish   the share's gradient is that of all ranks, behind it
 *     (update of the share)
 *     updated      what products read follows the masters */
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

/* All three hook into `weights`, which keep their place.  Frozen views are made afterwards. */
void unit_traffic_whole(struct UnitTraffic *traffic, const struct Parallel *parallel,
                        struct Weights *weights);
/* `passes` is that of all roles.  `lender`: traffic of the role whose gradient this one borrows
 * (weights_borrow_grad), or NULL. */
struct PassWatch {
    bool begun; /* a pass, since weights were last gathered */
};
void unit_traffic_optimizer(struct UnitTraffic *traffic, const struct Parallel *parallel,
                            struct PassWatch *passes, struct Weights *weights,
                            const struct UnitTraffic *lender);
/* `ring` (unit_ring.h) is that of all roles. */
struct UnitRing;
void unit_traffic_full(struct UnitTraffic *traffic, const struct Parallel *parallel,
                       struct UnitRing *ring, struct Weights *weights);

/* ---- for the two that have shares ---- */

/* Elements of a whole piece, padding included. */
static inline int64_t whole_piece_elems(const struct Weights *weights, int unit, enum Piece piece) {
    return weights->share.n_shares * weights->pieces[unit][piece].n_slice;
}
/* Brings a unit's weights from all shares to `memory`. */
CommTicket whole_unit_gather(const struct Weights *weights, int unit,
                             const struct UnitMemory *memory, struct Comm *shares);
/* own [slices of both pieces] = this share's sums of memory->grad, which is spoilt. */
CommTicket whole_unit_reduce(const struct Weights *weights, int unit,
                             const struct UnitMemory *memory, float *own, struct Comm *shares);
/* Elements of `own`; of weights->grad, too, where they begin at pieces[unit][PIECE_F32].at. */
int64_t own_unit_elems(const struct Weights *weights, int unit);

#endif
