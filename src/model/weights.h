/* Where the parameters of one role (teacher, student, ...) lie in device memory.
 *
 * Computing.  A network reads the tensors of a unit (params.h) through struct UnitMemory, between
 * unit_acquire and unit_release, in the order in which it needs them.  When nothing is sharded,
 * these pointers lead into the role's own arrays for good, and acquiring is free.  Otherwise hooks
 * bring a unit's tensors when they are asked for (train/unit_traffic.h).
 *
 * Storing.  The role's own arrays hold a *share* of it.  Each unit has two *pieces*: its float32
 * tensors, and the others.  Every piece is cut into n equal slices, one for each of n ranks, padded
 * with zeros at the end.  A single rank has all of it, in the order of the table.  Elementwise work
 * (AdamW, EMA, norms) runs over a share without looking at its structure.
 *
 * Precision.  The optimizer works on float32 *masters*.  Matrix products read a rounded copy in the
 * backend's activation type (`compute`), which follows the masters; norms and modulations read the
 * masters themselves (PARAM_F32). */
#ifndef TMD_WEIGHTS_H
#define TMD_WEIGHTS_H

#include "kernels/backend.h"
#include "model/params.h"

/* The two pieces of a unit: tensors with PARAM_F32, and those without. */
enum Piece { PIECE_F32, PIECE_ACT, PIECES };

/* A whole unit, ready to compute with. */
struct UnitMemory {
    float *f32;          /* PIECE_F32 */
    Act *act;            /* PIECE_ACT */
    float *grad[PIECES]; /* gradients of both; NULL where there are none */
};

/* Called as a network uses its units; any may be NULL. */
struct UnitHooks {
    void *context;
    /* A pass through the blocks begins.  Returns whether all units are in memory, and stay where
     * they are until the weights change. */
    bool (*pass_begins)(void *context);
    /* Brings a unit's weights; for `backward` also memory for its gradient. */
    void (*acquire)(void *context, int unit, bool backward);
    void (*release)(void *context, int unit);
    /* The unit's gradient of this step is complete. */
    void (*grad_ready)(void *context, int unit);
};

/* Which share of a role this process holds; n_shares 0 or 1: all of it. */
struct Share {
    int index, n_shares;
};

/* A piece, and this rank's slice of it. */
struct PieceSlice {
    int64_t offset, n_elems; /* of the whole piece, in the table's order */
    int64_t n_slice;         /* elements of a slice, the same on every rank */
    int64_t at;              /* where this rank's slice begins in its arrays */
};

/* The parameters of a role.  Arrays that it does not have are NULL.  A trained role has masters of
 * everything; a frozen one has masters of the float32 tensors, and of the others only `compute`. */
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
    Act *compute; /* if trained, in the masters' order; the master itself where Act is float32 */
    float *grad, *adam_m, *adam_v, *ema;
    int arrays; /* enum WeightsArrays: which of these are its own, and freed with it */
};

enum WeightsArrays {
    WEIGHTS_GRAD = 1,
    WEIGHTS_MOMENTS = 2, /* adam_m, adam_v; a role without them is frozen */
    WEIGHTS_EMA = 4,
    WEIGHTS_TRAINED = WEIGHTS_GRAD | WEIGHTS_MOMENTS
};

/* Allocates zeroed arrays for a share.  If that is the whole role, `units` point into them; if not,
 * hooks have to set `units`. */
void weights_alloc_share(struct Weights *weights, const struct Backend *be,
                         const struct ParamTable *table, int arrays, struct Share share);
/* The same for the whole role. */
void weights_alloc(struct Weights *weights, const struct Backend *be, const struct ParamTable *table,
                   int arrays);
void weights_free(struct Weights *weights);
/* Device bytes that weights_alloc_share took. */
int64_t weights_bytes(const struct Weights *weights);

/* Uses the gradient memory of another role, which must not be smaller nor trained in the same step. */
void weights_borrow_grad(struct Weights *weights, const struct Weights *lender);

/* The same memory, seen by passes that want no parameter gradients. */
struct Weights weights_frozen_view(const struct Weights *weights);

/* Exchanges the arrays of master and average (EMA), and brings `compute` up to date.  Only for
 * shares: the `units` of a whole role would still point at the old master. */
void weights_swap_average(struct Weights *weights);

/* A view of a whole role in which the average (EMA) stands in place of the weights.  Memory for the
 * view: act [n_elems] for `compute`, NULL where Act is float32; units [n_units]. */
struct Weights weights_average_view(const struct Weights *weights, Act *act,
                                    struct UnitMemory *units);

/* The elements [begin, end) of tensor `param` lie in this share, from element `at` of its arrays on
 * (of `compute` for a frozen tensor without PARAM_F32). */
struct OwnRange {
    int64_t begin, end, at;
};
struct OwnRange weights_own(const struct Weights *weights, int param);

/* Sets the own range of a tensor from host values [end - begin].  After the last tensor,
 * weights_refresh brings `compute` up to date with the masters. */
void weights_put(struct Weights *weights, int param, const float *host);
void weights_refresh(struct Weights *weights);
/* The own range's values [end - begin] as they were put (rounded where only `compute` has them). */
void weights_get(const struct Weights *weights, int param, float *host);
/* Host [table->n_elems] -> weights_put of every tensor, weights_refresh. */
void weights_upload(struct Weights *weights, const float *host);

/* What networks call; see struct UnitHooks.  Without hooks all units are always in memory. */
static inline bool unit_pass_begins(const struct Weights *weights) {
    if (weights->hooks.pass_begins) return weights->hooks.pass_begins(weights->hooks.context);
    return !weights->hooks.acquire;
}
static inline void unit_acquire(const struct Weights *weights, int unit) {
    if (weights->hooks.acquire) weights->hooks.acquire(weights->hooks.context, unit, false);
}

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
/* The gradient of `param`; NULL when the network is frozen. */
static inline float *weight_grad(const struct Weights *weights, int param) {
    const struct ParamDesc *desc = &weights->table->params[param];
    const struct UnitDesc *unit = &weights->table->units[desc->unit];
    int64_t at = desc->offset - unit->offset;
    if (!weights->trained) return NULL;
    if (desc->flags & PARAM_F32) return weights->units[desc->unit].grad[PIECE_F32] + at;
    return weights->units[desc->unit].grad[PIECE_ACT] + at - unit->n_f32;
}

#endif
