/* Masters, moments and summed gradients are in shares.  Every rank has the whole copy of the
 * weights that passes read, and a whole gradient for backward to add to. */
#include <stdlib.h>

#include "error.h"
#include "train/unit_traffic.h"

struct OptimizerTraffic {
    const struct Parallel *parallel;
    struct PassWatch *passes;
    struct Weights *weights;
    struct UnitMemory whole; /* all units, one after another */
    bool borrows;            /* its gradient's memory is another role's */
    int64_t n_grad;          /* elements of a whole gradient */
    bool *begun;             /* [n_units], of the sums */
    CommTicket *gathered;    /* [n_units], 0: not awaited */
};

/* Sums into the share; there is one sum of each unit in an iteration. */
static void begin_sum(struct OptimizerTraffic *t, int unit) {
    const struct Weights *w = t->weights;
    TMD_CHECK(!t->begun[unit], "the gradient of unit '%s' was announced twice",
              w->table->units[unit].name);
    t->begun[unit] = true;
    whole_unit_reduce(w, unit, &w->units[unit], w->grad + w->pieces[unit][PIECE_F32].at,
                      t->parallel->shares);
}

static void await_unit(struct OptimizerTraffic *t, int unit) {
    if (!t->gathered[unit]) return;
    t->parallel->shares->wait(t->parallel->shares, t->gathered[unit]);
    t->gathered[unit] = 0;
}

static bool on_pass_begins(void *context) {
    struct OptimizerTraffic *t = context;
    bool first = !t->passes->begun, all_there = true;
    t->passes->begun = true;
    for (int unit = 0; unit < t->weights->table->n_units; unit++) {
        if (!first) await_unit(t, unit);
        if (t->gathered[unit]) all_there = false;
    }
    return all_there;
}

static void on_acquire(void *context, int unit, bool backward) {
    (void)backward;
    await_unit(context, unit);
}

static void on_grad_ready(void *context, int unit) {
    begin_sum(context, unit);
}

static void begin(void *state) {
    struct OptimizerTraffic *t = state;
    const struct Weights *w = t->weights;
    for (int unit = 0; unit < w->table->n_units; unit++) t->begun[unit] = false;
    w->be->zero(w->be, t->whole.grad[PIECE_F32], t->n_grad * (int64_t)sizeof(float));
}

static void sum_rest(void *state) {
    struct OptimizerTraffic *t = state;
    for (int unit = 0; unit < t->weights->table->n_units; unit++)
        if (!t->begun[unit]) begin_sum(t, unit);
}

static void sum_finish(void *state) {
    struct OptimizerTraffic *t = state;
    struct Comm *shares = t->parallel->shares, *replicas = t->parallel->replicas;
    shares->finish(shares);
    if (!replicas) return;
    replicas->sum_start(replicas, t->weights->grad, t->weights->n_elems);
    replicas->finish(replicas);
}

/* In the order in which a forward pass will ask for them. */
static void updated(void *state) {
    struct OptimizerTraffic *t = state;
    for (int unit = 0; unit < t->weights->table->n_units; unit++)
        t->gathered[unit] = whole_unit_gather(t->weights, unit, &t->weights->units[unit],
                                              t->parallel->shares);
    t->passes->begun = false;
}

static void close_traffic(void *state) {
    struct OptimizerTraffic *t = state;
    const struct Backend *be = t->weights->be;
    t->parallel->shares->finish(t->parallel->shares);
    be->memory_free(be, t->whole.f32);
    be->memory_free(be, t->whole.act);
    if (!t->borrows) be->memory_free(be, t->whole.grad[PIECE_F32]);
    free(t->begun);
    free(t->gathered);
    free(t);
}

/* Points the units into `whole`; returns how many elements of each kind that takes. */
static struct PieceCounts {
    int64_t n[PIECES];
} place_units(struct Weights *w, const struct UnitMemory *whole) {
    struct PieceCounts at = {{0}};
    for (int unit = 0; unit < w->table->n_units; unit++) {
        int64_t n_f32 = whole_piece_elems(w, unit, PIECE_F32);
        int64_t n_act = whole_piece_elems(w, unit, PIECE_ACT), both = at.n[0] + at.n[1];
        if (whole)
            w->units[unit] = (struct UnitMemory){
                .f32 = whole->f32 + at.n[PIECE_F32],
                .act = act_at(w->be, whole->act, at.n[PIECE_ACT]),
                .grad = {whole->grad[PIECE_F32] + both, whole->grad[PIECE_F32] + both + n_f32}};
        at.n[PIECE_F32] += n_f32;
        at.n[PIECE_ACT] += n_act;
    }
    return at;
}

void unit_traffic_optimizer(struct UnitTraffic *traffic, const struct Parallel *parallel,
                            struct PassWatch *passes, struct Weights *w,
                            const struct UnitTraffic *lender) {
    const struct Backend *be = w->be;
    const struct OptimizerTraffic *from = lender ? lender->state : NULL;
    struct OptimizerTraffic *t = xcalloc(sizeof *t);
    struct PieceCounts n = place_units(w, NULL);
    size_t n_units = (size_t)w->table->n_units;
    *t = (struct OptimizerTraffic){.parallel = parallel,
                                   .passes = passes,
                                   .weights = w,
                                   .borrows = lender,
                                   .n_grad = n.n[PIECE_F32] + n.n[PIECE_ACT],
                                   .begun = xcalloc(n_units * sizeof *t->begun),
                                   .gathered = xcalloc(n_units * sizeof *t->gathered)};
    int64_t f32_bytes = n.n[PIECE_F32] * (int64_t)sizeof(float);
    int64_t act_bytes = n.n[PIECE_ACT] * dtype_bytes(be->act_dtype);
    int64_t grad_bytes = t->n_grad * (int64_t)sizeof(float);
    TMD_CHECK(!from || from->n_grad >= t->n_grad, "a gradient of %lld elements for %lld",
              (long long)(from ? from->n_grad : 0), (long long)t->n_grad);
    t->whole.f32 = be->memory_alloc(be, f32_bytes);
    t->whole.act = be->memory_alloc(be, act_bytes);
    t->whole.grad[PIECE_F32] =
        from ? from->whole.grad[PIECE_F32] : be->memory_alloc(be, grad_bytes);
    place_units(w, &t->whole);
    w->hooks = (struct UnitHooks){.context = t,
                                  .pass_begins = on_pass_begins,
                                  .acquire = on_acquire,
                                  .grad_ready = on_grad_ready};
    *traffic = (struct UnitTraffic){t,          f32_bytes + act_bytes + (from ? 0 : grad_bytes),
                                    begin,      sum_rest,
                                    sum_finish, updated,
                                    close_traffic};
}
