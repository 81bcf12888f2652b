/* What goes to each part is packed side by side, then exchanged sample by sample. */
#include "model/token_split.h"

#include "error.h"

/* Where the rows of one sample lie, by part. */
struct Parcels {
    struct TokenParcel all[TOKEN_MAX_PARTS]; /* in [batch, S]: the part's tokens */
    struct TokenParcel
        own[TOKEN_MAX_PARTS]; /* in [P, batch, S_p]; or, alike for all, [batch, S_p] */
};

static void parcels_make(struct Parcels *parcels, const struct TokenSplit *split, int64_t b,
                         int64_t batch, int64_t row_bytes, bool alike) {
    int64_t own_bytes = token_split_own(split) * row_bytes;
    for (int p = 0; p < split->n_parts; p++) {
        int64_t first = token_split_first(split, p), end = token_split_first(split, p + 1);
        parcels->all[p] = (struct TokenParcel){(b * split->tokens + first) * row_bytes,
                                               (end - first) * row_bytes};
        parcels->own[p] =
            (struct TokenParcel){((alike ? 0 : p * batch) + b) * own_bytes, own_bytes};
    }
}

/* ---- rows */

Act *token_rows_to_cut(const struct TokenSplit *split, Act *own, int64_t batch, int64_t width,
                       struct Arena *arena) {
    return split ? arena_act(arena, batch * split->tokens * width) : own;
}

void token_rows_cut(const struct TokenSplit *split, Act *own, const Act *all, int64_t batch,
                    int64_t width, const struct Backend *be) {
    if (!split) return;
    int64_t row_bytes = width * dtype_bytes(be->act_dtype);
    int64_t own_bytes = token_split_own(split) * row_bytes;
    be->copy_rows(be, own, own_bytes,
                  act_at(be, all, token_split_first(split, split->part) * width),
                  split->tokens * row_bytes, batch, own_bytes);
}

const Act *token_rows_gather(const struct TokenSplit *split, const Act *own, int64_t batch,
                             int64_t width, struct Arena *arena) {
    if (!split) return own;
    struct Parcels parcels;
    Act *all = arena_act(arena, batch * split->tokens * width);
    for (int64_t b = 0; b < batch; b++) {
        parcels_make(&parcels, split, b, batch, width * dtype_bytes(arena->be->act_dtype), true);
        split->exchange(split->context, all, parcels.all, own, parcels.own);
    }
    return all;
}

/* ---- tokens for heads
 *
 * On the side of the tokens, what the parts get is packed part by part.  On the side of the heads a
 * sample's rows lie one part after another as they are needed; a sample is an exchange of its own.
 */

struct Pack {
    const struct Backend *be;
    Act *memory;       /* [P, batch, S_p, n_streams, dim / P] */
    int64_t slice;     /* elements of a stream's row that belong to one part: dim / P */
    int64_t rows;      /* of one part: batch S_p */
    int64_t row_elems; /* n_streams slice */
};

static struct Pack pack_alloc(const struct TokenSplit *split, int n_streams, int64_t batch,
                              int64_t dim, struct Arena *arena) {
    TMD_CHECK(split->n_parts <= TOKEN_MAX_PARTS && dim % split->n_parts == 0,
              "rows of %lld in %d parts", (long long)dim, split->n_parts);
    struct Pack pack = {
        .be = arena->be, .slice = dim / split->n_parts, .rows = batch * token_split_own(split)};
    pack.row_elems = n_streams * pack.slice;
    pack.memory = arena_act(arena, split->n_parts * pack.rows * pack.row_elems);
    return pack;
}

/* A part's slice of stream i, in the stream and in the pack. */
struct Slice {
    struct TokenStream stream, packed;
};

static struct Slice slice_of(const struct Pack *pack, const struct TokenStream *streams, int i,
                             int part) {
    return (struct Slice){
        {act_at(pack->be, streams[i].rows, part * pack->slice), streams[i].stride},
        {act_at(pack->be, pack->memory, part * pack->rows * pack->row_elems + i * pack->slice),
         pack->row_elems}};
}

static void copy_slice(const struct Pack *pack, struct TokenStream to, struct TokenStream from) {
    int64_t elem = dtype_bytes(pack->be->act_dtype);
    pack->be->copy_rows(pack->be, to.rows, to.stride * elem, from.rows, from.stride * elem,
                        pack->rows, pack->slice * elem);
}

void token_split_to_heads(const struct TokenSplit *split, Act *heads,
                          const struct TokenStream *streams, int n_streams, int64_t batch,
                          int64_t dim, struct Arena *arena) {
    int64_t mark = arena_mark(arena);
    struct Pack pack = pack_alloc(split, n_streams, batch, dim, arena);
    struct Parcels parcels;
    for (int p = 0; p < split->n_parts; p++)
        for (int i = 0; i < n_streams; i++) {
            struct Slice slice = slice_of(&pack, streams, i, p);
            copy_slice(&pack, slice.packed, slice.stream);
        }
    for (int64_t b = 0; b < batch; b++) {
        parcels_make(&parcels, split, b, batch, pack.row_elems * dtype_bytes(pack.be->act_dtype),
                     false);
        split->exchange(split->context, heads, parcels.all, pack.memory, parcels.own);
    }
    arena_release(arena, mark);
}

void token_split_to_tokens(const struct TokenSplit *split, const struct TokenStream *streams,
                           int n_streams, const Act *heads, int64_t batch, int64_t dim,
                           struct Arena *arena) {
    int64_t mark = arena_mark(arena);
    struct Pack pack = pack_alloc(split, n_streams, batch, dim, arena);
    struct Parcels parcels;
    for (int64_t b = 0; b < batch; b++) {
        parcels_make(&parcels, split, b, batch, pack.row_elems * dtype_bytes(pack.be->act_dtype),
                     false);
        split->exchange(split->context, pack.memory, parcels.own, heads, parcels.all);
    }
    for (int p = 0; p < split->n_parts; p++)
        for (int i = 0; i < n_streams; i++) {
            struct Slice slice = slice_of(&pack, streams, i, p);
            copy_slice(&pack, slice.stream, slice.packed);
        }
    arena_release(arena, mark);
}
