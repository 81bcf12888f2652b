/* Memory for a few whole units at a time, through which all roles of a fully sharded run pass.
 *
 * A unit that is asked for and not there is gathered into the slot that was used longest ago.  The order
 * in which a step asks for units is the same in every iteration: it is learnt the first time, and from
 * then on each unit's gather begins while the one before it is at work.
 *
 * Backward's unit has memory for its whole gradient, too.  When the gradient is complete, or its memory
 * wanted for another, it is summed over ranks into a buffer of this share's size, and added to the
 * share's gradient once that has arrived.
 *
 * All ranks ask in the same order; whatever differs between them must not decide what is asked for. */
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

/* What is asked for from here on is learnt as, or expected to be, the order of steps of this kind;
 * -1: neither. */
enum { UNIT_RING_KINDS = 8 };
void unit_ring_begin(struct UnitRing *ring, int kind);

/* ---- for unit_traffic_full ---- */
void unit_ring_acquire(struct UnitRing *ring, struct Weights *weights, int unit, bool backward);
void unit_ring_release(struct UnitRing *ring, struct Weights *weights, int unit);
/* Begins the sum of the unit's gradient, if any of it is here. */
void unit_ring_sum(struct UnitRing *ring, struct Weights *weights, int unit);
/* Sums what is here of a role's gradients, and adds all sums to the share. */
void unit_ring_sum_all(struct UnitRing *ring, struct Weights *weights);
/* What is here of a role's gradients is worthless. */
void unit_ring_drop_gradients(struct UnitRing *ring, struct Weights *weights);
/* The role's weights have changed: what is here of them is stale. */
void unit_ring_forget(struct UnitRing *ring, struct Weights *weights);

#endif
