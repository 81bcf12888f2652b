/* Where the parameters of one role lie.
 *
 * Computation reads a unit through struct UnitMemory, between unit_acquire and unit_release, in the
 * order of need.  When nothing is sharded these point for good into the role's own arrays, and
 * acquiring is free; else hooks bring a unit's memory when it is asked for.
 *
 * The own arrays hold a *share*: each unit has two *pieces*, its float32 tensors and the others, and of
 * every piece each of n ranks has an equal slice, padded with zeros at the end.  One rank alone has all,
 * in the order of the table.  Elementwise work (AdamW, EMA, norms) runs over a share as it lies. */
#ifndef TMD_WEIGHTS_H
#define TMD_WEIGHTS_H

#include "kernels/backend.h"
#include "model/params.h"

/* Of a unit: tensors of PARAM_F32, and the others. */
enum Piece { PIECE_F32, PIECE_ACT, PIECES };

struct UnitMemory {
    float *f32; /* the one piece */
    Act *act;   /* the other */
    float *grad[PIECES]; /* NULL where there is none */
};

/* Called as units are used; any may be NULL. */
struct UnitHooks {
    void *context;
    /* A pass through a network's blocks begins: whether all of its units are there, and stay where they
     * are until the weights change. */
    bool (*pass_begins)(void *context);
    /* backward: the unit's gradient will be added to, too */
    void (*acquire)(void *context, int unit, bool backward);
    void (*release)(void *context, int unit);
    void (*grad_ready)(void *context, int unit); /* the unit's gradient of this step is complete */
};

/* Which part of a role this process holds; n_shares 0 or 1: all of it. */
struct Share {
    int index, n_shares;
};

struct PieceSlice {
    int64_t offset, n_elems; /* of the whole piece, in the table's order */
    int64_t n_slice;         /* elements of every rank's slice */
    int64_t at;              /* where this rank's lies in its arrays */
};

/* Arrays that a role does not have are NULL.  Trained weights have a master for every piece; frozen
 * ones only for the float32 tensors, and of the others nothing but what products read. */
struct Weights {
    const struct Backend *be;
    const struct ParamTable *table;
    struct UnitMemory *units; /* [n_units] */
    struct UnitHooks hooks;
    bool trained; /* backward makes parameter gradients */

    struct Share share;
    struct PieceSlice (*pieces)[PIECES]; /* [n_units] */
    int64_t n_elems;   /* of master, grad, adam_m, adam_v, ema */
    int64_t n_compute; /* of compute, where that is memory of its own */
    float *master;
    Act *compute; /* trained: of the master's order; the master itself when Act is float32 */
    float *grad, *adam_m, *adam_v, *ema;
    int parts; /* which of these are its own, and freed with it */
};

enum WeightsParts {
    WEIGHTS_GRAD = 1,
    WEIGHTS_MOMENTS = 2, /* adam_m, adam_v */
    WEIGHTS_EMA = 4,
    WEIGHTS_TRAINED = WEIGHTS_GRAD | WEIGHTS_MOMENTS /* frozen without WEIGHTS_MOMENTS */
};

/* Allocates zeroed arrays for a share; `units` of a whole role point into them, of a part nowhere. */
void weights_alloc_share(struct Weights *weights, const struct Backend *be,
                         const struct ParamTable *table, int parts, struct Share share);
/* All of it. */
void weights_alloc(struct Weights *weights, const struct Backend *be, const struct ParamTable *table,
                   int parts);
void weights_free(struct Weights *weights);
/* Device bytes that weights_alloc_share took. */
int64_t weights_bytes(const struct Weights *weights);

/* Shares the gradient of a role that is never trained in the same step, and is not smaller. */
void weights_borrow_grad(struct Weights *weights, const struct Weights *lender);

/* The same weights as seen by a pass that differentiates by inputs only. */
struct Weights weights_frozen_view(const struct Weights *weights);

/* Exchanges master and average, and brings what products read up to date. */
void weights_swap_average(struct Weights *weights);

/* A whole role's average in place of its weights.  act [n_elems]: memory for what products read, NULL
 * where Act is float32; units [n_units]: the view's own. */
struct Weights weights_average_view(const struct Weights *weights, Act *act,
                                    struct UnitMemory *units);

/* The elements [begin, end) of tensor `param` that lie in this share, from element `at` of its arrays
 * on; of frozen tensors that products read: of `compute`. */
struct OwnRange {
    int64_t begin, end, at;
};
struct OwnRange weights_own(const struct Weights *weights, int param);

/* Sets the own range of a tensor from host values [end - begin].  After the last of them,
 * weights_refresh brings what products read up to date. */
void weights_put(struct Weights *weights, int param, const float *host);
void weights_refresh(struct Weights *weights);
/* The own range's values as they were put (of frozen tensors that products read: rounded). */
void weights_get(const struct Weights *weights, int param, float *host);
/* Host [table->n_elems] -> weights_put of every tensor, weights_refresh. */
void weights_upload(struct Weights *weights, const float *host);

/* Units that nobody brings are always there. */
static inline bool unit_pass_begins(const struct Weights *weights) {
    if (weights->hooks.pass_begins) return weights->hooks.pass_begins(weights->hooks.context);
    return !weights->hooks.acquire;
}
static inline void unit_acquire(const struct Weights *weights, int unit) {
    if (weights->hooks.acquire) weights->hooks.acquire(weights->hooks.context, unit, false);
}
/* For backward. */
static inline void unit_acquire_backward(const struct Weights *weights, int unit) {
    if (weights->hooks.acquire) weights->hooks.acquire(weights->hooks.context, unit, weights->trained);
}
static inline void unit_release(const struct Weights *weights, int unit) {
    if (weights->hooks.release) weights->hooks.release(weights->hooks.context, unit);
}
static inline void unit_grad_ready(const struct Weights *weights, int unit) {
    if (weights->hooks.grad_ready) weights->hooks.grad_ready(weights->hooks.context, unit);
}

/* Addresses of tensor `param`, valid while its unit is acquired. */
static inline const Act *weight_act(const struct Weights *weights, int param) {
    const struct ParamDesc *desc = &weights->table->params[param];
    const struct UnitDesc *unit = &weights->table->units[desc->unit];
    return act_at(weights->be, weights->units[desc->unit].act,
                  desc->offset - unit->offset - unit->n_f32);
}
static inline const float *weight_f32(const struct Weights *weights, int param) {
    const struct ParamDesc *desc = &weights->table->params[param];
    return weights->units[desc->unit].f32 + (desc->offset - weights->table->units[desc->unit].offset);
}
/* NULL when the network is frozen. */
static inline float *weight_grad(const struct Weights *weights, int param) {
    const struct ParamDesc *desc = &weights->table->params[param];
    const struct UnitDesc *unit = &weights->table->units[desc->unit];
    int64_t at = desc->offset - unit->offset;
    if (!weights->trained) return NULL;
    if (desc->flags & PARAM_F32) return weights->units[desc->unit].grad[PIECE_F32] + at;
    return weights->units[desc->unit].grad[PIECE_ACT] + at - unit->n_f32;
}

#endif
