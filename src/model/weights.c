/* The layout of a share: slices of all pieces one after another, and the way between them and the
 * tensors of the table. */
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { SLICE_ALIGNMENT = 16 /* elements: of 16-byte accesses in every type */ };

static int64_t slice_of(int64_t n_elems, int n_shares) {
    int64_t even = (n_elems + n_shares - 1) / n_shares;
    return (even + SLICE_ALIGNMENT - 1) / SLICE_ALIGNMENT * SLICE_ALIGNMENT;
}

/* Slices lie one after another.  A frozen role's pieces lie in two arrays, each counted on its own. */
static void lay_out(struct Weights *w) {
    int64_t n_frozen[PIECES] = {0};
    bool trained = w->arrays & WEIGHTS_MOMENTS;
    w->pieces = xcalloc((size_t)w->table->n_units * sizeof *w->pieces);
    for (int unit = 0; unit < w->table->n_units; unit++) {
        const struct UnitDesc *desc = &w->table->units[unit];
        int64_t n_f32 = desc->n_f32;
        struct PieceSlice pieces[PIECES] = {
            [PIECE_F32] = {.offset = desc->offset, .n_elems = n_f32},
            [PIECE_ACT] = {.offset = desc->offset + n_f32, .n_elems = desc->n_elems - n_f32}};
        for (int piece = 0; piece < PIECES; piece++) {
            int64_t *next = trained ? &w->n_elems : &n_frozen[piece];
            pieces[piece].n_slice = slice_of(pieces[piece].n_elems, w->share.n_shares);
            pieces[piece].at = *next;
            *next += pieces[piece].n_slice;
            w->pieces[unit][piece] = pieces[piece];
        }
    }
    if (!trained) w->n_elems = n_frozen[PIECE_F32];
    w->n_compute = trained ? w->n_elems : n_frozen[PIECE_ACT];
    if (trained && w->be->act_dtype == DTYPE_F32) w->n_compute = 0;
}

static void point_into_arrays(struct Weights *w) {
    for (int unit = 0; unit < w->table->n_units; unit++) {
        const struct PieceSlice *piece = w->pieces[unit];
        struct UnitMemory memory = {.f32 = w->master + piece[PIECE_F32].at,
                                    .act = act_at(w->be, w->compute, piece[PIECE_ACT].at)};
        for (int i = 0; w->grad && i < PIECES; i++) memory.grad[i] = w->grad + piece[i].at;
        w->units[unit] = memory;
    }
}

static float *alloc_f32(const struct Weights *w) {
    return w->be->memory_alloc(w->be, w->n_elems * (int64_t)sizeof(float));
}

void weights_alloc_share(struct Weights *w, const struct Backend *be, const struct ParamTable *table,
                         int arrays, struct Share share) {
    *w = (struct Weights){.be = be, .table = table, .arrays = arrays, .share = share};
    if (share.n_shares < 1) w->share = (struct Share){0, 1};
    w->trained = arrays & WEIGHTS_MOMENTS;
    lay_out(w);
    w->units = xcalloc((size_t)table->n_units * sizeof *w->units);
    w->master = alloc_f32(w);
    w->compute = w->n_compute ? be->memory_alloc(be, w->n_compute * dtype_bytes(be->act_dtype))
                              : (Act *)(void *)w->master;
    if (arrays & WEIGHTS_GRAD) w->grad = alloc_f32(w);
    if (arrays & WEIGHTS_MOMENTS) {
        w->adam_m = alloc_f32(w);
        w->adam_v = alloc_f32(w);
    }
    if (arrays & WEIGHTS_EMA) w->ema = alloc_f32(w);
    if (w->share.n_shares == 1) point_into_arrays(w);
}

void weights_alloc(struct Weights *w, const struct Backend *be, const struct ParamTable *table,
                   int arrays) {
    weights_alloc_share(w, be, table, arrays, (struct Share){0, 1});
}

void weights_free(struct Weights *w) {
    const struct Backend *be = w->be;
    if (!be) return;
    if (!(w->arrays & WEIGHTS_GRAD)) w->grad = NULL;
    if (w->n_compute) be->memory_free(be, w->compute);
    float *arrays[] = {w->master, w->grad, w->adam_m, w->adam_v, w->ema};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        if (arrays[i]) be->memory_free(be, arrays[i]);
    free(w->units);
    free(w->pieces);
    *w = (struct Weights){0};
}

int64_t weights_bytes(const struct Weights *w) {
    int n_arrays = 1 + !!(w->arrays & WEIGHTS_GRAD) + 2 * !!(w->arrays & WEIGHTS_MOMENTS) +
                   !!(w->arrays & WEIGHTS_EMA);
    return n_arrays * w->n_elems * (int64_t)sizeof(float) +
           w->n_compute * dtype_bytes(w->be->act_dtype);
}

void weights_borrow_grad(struct Weights *w, const struct Weights *lender) {
    TMD_CHECK(w->n_elems <= lender->n_elems, "a gradient of %lld elements for %lld",
              (long long)lender->n_elems, (long long)w->n_elems);
    w->grad = lender->grad;
    if (w->share.n_shares == 1) point_into_arrays(w);
}

struct Weights weights_frozen_view(const struct Weights *weights) {
    struct Weights view = *weights;
    view.trained = false;
    return view;
}

void weights_swap_average(struct Weights *w) {
    float *master = w->master;
    w->master = w->ema;
    w->ema = master;
    if (!w->n_compute) w->compute = (Act *)(void *)w->master;
    weights_refresh(w);
}

struct Weights weights_average_view(const struct Weights *weights, Act *act,
                                    struct UnitMemory *units) {
    struct Weights view = weights_frozen_view(weights);
    TMD_CHECK(view.ema && view.share.n_shares == 1, "an average that is not there, or not whole");
    view.master = view.ema;
    view.compute = act ? act : (Act *)(void *)view.ema;
    view.units = units;
    if (act) weights_refresh(&view);
    point_into_arrays(&view);
    return view;
}

static bool is_f32(const struct ParamDesc *param) {
    return param->flags & PARAM_F32;
}

struct OwnRange weights_own(const struct Weights *w, int param) {
    const struct ParamDesc *desc = &w->table->params[param];
    const struct PieceSlice *piece = &w->pieces[desc->unit][is_f32(desc) ? PIECE_F32 : PIECE_ACT];
    int64_t slice = piece->offset + w->share.index * piece->n_slice; /* in the table's order */
    int64_t begin = slice - desc->offset, end = begin + piece->n_slice;
    if (begin < 0) begin = 0;
    if (end > desc->n_elems) end = desc->n_elems;
    if (end <= begin) return (struct OwnRange){0};
    return (struct OwnRange){begin, end, piece->at + desc->offset + begin - slice};
}

/* Whether only `compute` has the tensor. */
static bool lacks_master(const struct Weights *w, int param) {
    return !(w->arrays & WEIGHTS_MOMENTS) && !is_f32(&w->table->params[param]);
}

void weights_put(struct Weights *w, int param, const float *host) {
    const struct Backend *be = w->be;
    struct OwnRange own = weights_own(w, param);
    int64_t n = own.end - own.begin;
    if (!n) return;
    if (!lacks_master(w, param)) {
        be->upload(be, w->master + own.at, host, n * (int64_t)sizeof *host);
        return;
    }
    int64_t n_bytes = n * dtype_bytes(be->act_dtype);
    void *act = xmalloc((size_t)n_bytes);
    dtype_from_f32(act, host, be->act_dtype, n);
    be->upload(be, act_at(be, w->compute, own.at), act, n_bytes);
    free(act);
}

void weights_refresh(struct Weights *w) {
    if (w->arrays & WEIGHTS_MOMENTS) w->be->weights_cast(w->be, w->compute, w->master, w->n_elems);
}

void weights_get(const struct Weights *w, int param, float *host) {
    const struct Backend *be = w->be;
    struct OwnRange own = weights_own(w, param);
    int64_t n = own.end - own.begin;
    if (!n) return;
    if (!lacks_master(w, param)) {
        be->download(be, host, w->master + own.at, n * (int64_t)sizeof *host);
        return;
    }
    int64_t n_bytes = n * dtype_bytes(be->act_dtype);
    void *act = xmalloc((size_t)n_bytes);
    be->download(be, act, act_at(be, w->compute, own.at), n_bytes);
    dtype_to_f32(host, act, be->act_dtype, n);
    free(act);
}

void weights_upload(struct Weights *w, const float *host) {
    for (int p = 0; p < w->table->n_params; p++)
        weights_put(w, p, host + w->table->params[p].offset + weights_own(w, p).begin);
    weights_refresh(w);
}
