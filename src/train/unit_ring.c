/* Slots for weights and slots for gradients, each chosen by when it was used last; the order of
 * requests, learnt by kind of step. */
#include "train/unit_ring.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "minmax.h"
#include "train/unit_traffic.h"

enum {
    VALUE_SLOTS = 3,   /* the unit at work, the next one, and the embeddings, which come often */
    GRADIENT_SLOTS = 2 /* the unit at work, and one whose sum is under way */
};

/* A unit of a role; weights NULL: none. */
struct UnitOf {
    struct Weights *weights;
    int unit;
};

struct ValueSlot {
    struct UnitOf of;
    void *memory; /* the float32 piece, then the other */
    CommTicket gathered; /* 0: arrived */
    int64_t used;        /* when; larger is later */
    bool acquired;
};

struct GradientSlot {
    struct UnitOf of;
    float *whole;        /* both pieces */
    float *own;          /* this share's sum */
    CommTicket summed;   /* 0: no sum under way */
    int64_t used;
    bool acquired;
};

struct Order {
    struct UnitOf *units;
    int n, n_alloc;
};

struct UnitRing {
    const struct Backend *be;
    struct Comm *shares;
    struct ValueSlot values[VALUE_SLOTS];
    struct GradientSlot gradients[GRADIENT_SLOTS];
    int n_gradients;
    int64_t clock, n_bytes;
    struct Order orders[UNIT_RING_KINDS];
    struct Order *order; /* of the step that runs; NULL: none */
    int at;              /* how much of it has been asked for */
    struct UnitOf last;  /* asked for */
};

static bool same(struct UnitOf a, struct UnitOf b) {
    return a.weights == b.weights && a.unit == b.unit;
}

/* ---- memory ---- */

static void *take(struct UnitRing *ring, int64_t n_bytes) {
    ring->n_bytes += n_bytes;
    return ring->be->memory_alloc(ring->be, n_bytes);
}

struct UnitRing *unit_ring_create(const struct Parallel *parallel, struct Weights *const *weights,
                                  int n_roles) {
    struct UnitRing *ring = xcalloc(sizeof *ring);
    int64_t n_bytes = 0, n_grad = 0, n_own = 0;
    for (int role = 0; role < n_roles; role++) {
        const struct Weights *w = weights[role];
        if (!w) continue;
        ring->be = w->be;
        for (int unit = 0; unit < w->table->n_units; unit++) {
            int64_t f32 = whole_piece_elems(w, unit, PIECE_F32);
            int64_t act = whole_piece_elems(w, unit, PIECE_ACT);
            n_bytes = larger(n_bytes, f32 * (int64_t)sizeof(float) + act * dtype_bytes(w->be->act_dtype));
            if (!w->trained) continue;
            n_grad = larger(n_grad, f32 + act);
            n_own = larger(n_own, own_unit_elems(w, unit));
        }
    }
    ring->shares = parallel->shares;
    for (int i = 0; i < VALUE_SLOTS; i++) ring->values[i].memory = take(ring, n_bytes);
    ring->n_gradients = n_grad ? GRADIENT_SLOTS : 0;
    for (int i = 0; i < ring->n_gradients; i++) {
        ring->gradients[i].whole = take(ring, n_grad * (int64_t)sizeof(float));
        ring->gradients[i].own = take(ring, n_own * (int64_t)sizeof(float));
    }
    return ring;
}

void unit_ring_destroy(struct UnitRing *ring) {
    if (!ring) return;
    ring->shares->finish(ring->shares);
    for (int i = 0; i < VALUE_SLOTS; i++) ring->be->memory_free(ring->be, ring->values[i].memory);
    for (int i = 0; i < ring->n_gradients; i++) {
        ring->be->memory_free(ring->be, ring->gradients[i].whole);
        ring->be->memory_free(ring->be, ring->gradients[i].own);
    }
    for (int kind = 0; kind < UNIT_RING_KINDS; kind++) free(ring->orders[kind].units);
    free(ring);
}

int64_t unit_ring_bytes(const struct UnitRing *ring) {
    return ring->n_bytes;
}

/* ---- weights ---- */

static struct ValueSlot *value_slot_of(struct UnitRing *ring, struct UnitOf of) {
    for (int i = 0; i < VALUE_SLOTS; i++)
        if (same(ring->values[i].of, of)) return &ring->values[i];
    return NULL;
}

static void await_values(struct UnitRing *ring, struct ValueSlot *slot) {
    if (slot->gathered) ring->shares->wait(ring->shares, slot->gathered);
    slot->gathered = 0;
}

/* Points the slot's unit into its memory. */
static void place_values(const struct ValueSlot *slot) {
    struct Weights *w = slot->of.weights;
    struct UnitMemory *unit = &w->units[slot->of.unit];
    unit->f32 = slot->memory;
    unit->act = (Act *)(void *)(unit->f32 + whole_piece_elems(w, slot->of.unit, PIECE_F32));
}

static struct ValueSlot *gather(struct UnitRing *ring, struct UnitOf of) {
    struct ValueSlot *slot = NULL;
    for (int i = 0; i < VALUE_SLOTS; i++) {
        struct ValueSlot *candidate = &ring->values[i];
        if (!candidate->acquired && (!slot || candidate->used < slot->used)) slot = candidate;
    }
    TMD_CHECK(slot, "more than %d units at a time", VALUE_SLOTS);
    await_values(ring, slot); /* expected, and then not asked for */
    slot->of = of;
    slot->used = ++ring->clock;
    place_values(slot);
    slot->gathered = whole_unit_gather(of.weights, of.unit, &of.weights->units[of.unit], ring->shares);
    return slot;
}

/* ---- the order of a step ---- */

static void learn(struct Order *order, struct UnitOf of) {
    if (order->n == order->n_alloc) {
        order->n_alloc = order->n_alloc ? 2 * order->n_alloc : 64;
        order->units = xrealloc(order->units, (size_t)order->n_alloc * sizeof *order->units);
    }
    order->units[order->n++] = of;
}

/* Notes what is asked for.  A step that has left the learnt order goes on learning from there. */
static void note(struct UnitRing *ring, struct UnitOf of) {
    struct Order *order = ring->order;
    if (!order || same(ring->last, of)) return;
    ring->last = of;
    if (ring->at < order->n && !same(order->units[ring->at], of)) order->n = ring->at;
    if (ring->at == order->n) learn(order, of);
    ring->at++;
}

static void gather_next(struct UnitRing *ring) {
    const struct Order *order = ring->order;
    if (!order || ring->at >= order->n) return;
    struct UnitOf next = order->units[ring->at];
    if (!value_slot_of(ring, next)) gather(ring, next);
}

void unit_ring_begin(struct UnitRing *ring, int kind) {
    TMD_CHECK(kind < UNIT_RING_KINDS, "a step of kind %d", kind);
    ring->order = kind < 0 ? NULL : &ring->orders[kind];
    ring->at = 0;
    ring->last = (struct UnitOf){0};
}

/* ---- gradients ---- */

/* Waits for the slot's sum and adds it to the share; the slot is empty then. */
static void collect(struct UnitRing *ring, struct GradientSlot *slot) {
    const struct Weights *w = slot->of.weights;
    if (!w || !slot->summed) return;
    float *share = w->grad + w->pieces[slot->of.unit][PIECE_F32].at;
    ring->shares->wait(ring->shares, slot->summed);
    ring->be->add_f32(ring->be, share, share, slot->own, own_unit_elems(w, slot->of.unit));
    slot->of = (struct UnitOf){0};
    slot->summed = 0;
}

static void begin_sum(struct UnitRing *ring, struct GradientSlot *slot) {
    if (!slot->of.weights || slot->summed) return;
    slot->summed = whole_unit_reduce(slot->of.weights, slot->of.unit,
                                     &slot->of.weights->units[slot->of.unit], slot->own, ring->shares);
}

static struct GradientSlot *gradient_slot_of(struct UnitRing *ring, struct UnitOf of) {
    for (int i = 0; i < ring->n_gradients; i++)
        if (same(ring->gradients[i].of, of) && !ring->gradients[i].summed) return &ring->gradients[i];
    return NULL;
}

static void acquire_gradient(struct UnitRing *ring, struct UnitOf of) {
    struct GradientSlot *slot = gradient_slot_of(ring, of);
    if (!slot) {
        slot = &ring->gradients[0];
        for (int i = 1; i < ring->n_gradients; i++)
            if (ring->gradients[i].used < slot->used) slot = &ring->gradients[i];
        TMD_CHECK(!slot->acquired, "backward of more than %d units at a time", GRADIENT_SLOTS);
        begin_sum(ring, slot);
        collect(ring, slot);
        const struct Weights *w = of.weights;
        int64_t n_f32 = whole_piece_elems(w, of.unit, PIECE_F32);
        int64_t n = n_f32 + whole_piece_elems(w, of.unit, PIECE_ACT);
        ring->be->zero(ring->be, slot->whole, n * (int64_t)sizeof(float));
        slot->of = of;
        w->units[of.unit].grad[PIECE_F32] = slot->whole;
        w->units[of.unit].grad[PIECE_ACT] = slot->whole + n_f32;
    }
    slot->used = ++ring->clock;
    slot->acquired = true;
}

void unit_ring_sum(struct UnitRing *ring, struct Weights *weights, int unit) {
    struct GradientSlot *slot = gradient_slot_of(ring, (struct UnitOf){weights, unit});
    if (slot) begin_sum(ring, slot);
}

void unit_ring_sum_all(struct UnitRing *ring, struct Weights *weights) {
    for (int i = 0; i < ring->n_gradients; i++) {
        if (ring->gradients[i].of.weights != weights) continue;
        begin_sum(ring, &ring->gradients[i]);
        collect(ring, &ring->gradients[i]);
    }
}

void unit_ring_drop_gradients(struct UnitRing *ring, struct Weights *weights) {
    for (int i = 0; i < ring->n_gradients; i++) {
        struct GradientSlot *slot = &ring->gradients[i];
        if (slot->of.weights != weights) continue;
        if (slot->summed) ring->shares->wait(ring->shares, slot->summed);
        slot->summed = 0;
        slot->of = (struct UnitOf){0};
    }
}

/* ---- units come and go ---- */

void unit_ring_acquire(struct UnitRing *ring, struct Weights *weights, int unit, bool backward) {
    struct UnitOf of = {weights, unit};
    struct ValueSlot *slot = value_slot_of(ring, of);
    if (!slot) slot = gather(ring, of);
    TMD_CHECK(!slot->acquired, "unit '%s' acquired twice", weights->table->units[unit].name);
    await_values(ring, slot);
    slot->acquired = true;
    slot->used = ++ring->clock;
    if (backward) acquire_gradient(ring, of);
    note(ring, of);
    gather_next(ring);
}

void unit_ring_release(struct UnitRing *ring, struct Weights *weights, int unit) {
    struct UnitOf of = {weights, unit};
    struct ValueSlot *slot = value_slot_of(ring, of);
    struct GradientSlot *gradient = gradient_slot_of(ring, of);
    TMD_CHECK(slot && slot->acquired, "unit '%s' was not acquired", weights->table->units[unit].name);
    slot->acquired = false;
    if (gradient) gradient->acquired = false;
}

void unit_ring_forget(struct UnitRing *ring, struct Weights *weights) {
    for (int i = 0; i < VALUE_SLOTS; i++) {
        struct ValueSlot *slot = &ring->values[i];
        if (slot->of.weights != weights) continue;
        await_values(ring, slot);
        slot->of = (struct UnitOf){0};
    }
}
