/* A cache for a few whole units at a time, which all roles of a fully sharded run (ZeRO-3) share.
 *
 * Weights.  A unit that is asked for and not in the cache is gathered into the slot that was used
 * longest ago.  A kind of step asks for units in the same order in every iteration.  The ring
 * learns the order in the first one, and from then on begins each unit's gather while the unit
 * before it computes.
 *
 * Gradients.  A unit that backward asks for also gets memory for its whole gradient.  When the
 * gradient is complete, or another unit needs its memory, it is summed over ranks into a buffer of
 * this share's size; when the sum has arrived, that is added to the share's gradient.
 *
 * Gathers and sums are collective, so all ranks must ask in the same order: nothing that differs
 * between ranks may decide what a step asks for. */
#ifndef TMD_UNIT_RING_H
#define TMD_UNIT_RING_H

#include "model/weights.h"
#include "train/parallel.h"

struct UnitRing;

/* Slots for the largest units among `weights` [n_roles], NULLs left out, whose shares are allocated;
 * memory for gradients where any of them is trained. */
struct UnitRing *unit_ring_create(const struct Parallel *parallel,
                                  struct Weights *const *weights, int n_roles);
void unit_ring_destroy(struct UnitRing *ring);
int64_t unit_ring_bytes(const struct UnitRing *ring);

/* A step of this kind begins: the ring learns its order, or prefetches in the order it has learnt.
 * -1: neither. */
enum { UNIT_RING_KINDS = 8 };
void unit_ring_begin(struct UnitRing *ring, int kind);

/* ---- for unit_traffic_full ---- */
void unit_ring_acquire(struct UnitRing *ring, struct Weights *weights, int unit, bool backward);
void unit_ring_release(struct UnitRing *ring, struct Weights *weights, int unit);
/* Begins the sum of the unit's gradient, if it is in the cache. */
void unit_ring_sum(struct UnitRing *ring, struct Weights *weights, int unit);
/* Sums all of a role's gradients that are in the cache, and adds all sums to the share. */
void unit_ring_sum_all(struct UnitRing *ring, struct Weights *weights);
/* Drops a role's gradients from the cache. */
void unit_ring_drop_gradients(struct UnitRing *ring, struct Weights *weights);
/* Drops a role's weights from the cache, because they have changed. */
void unit_ring_forget(struct UnitRing *ring, struct Weights *weights);

#endif
