#include "train/unit_traffic.h"

/* A unit may have tensors of one kind only. */
CommTicket whole_unit_gather(const struct Weights *w, int unit, const struct UnitMemory *memory,
                             struct Comm *shares) {
    const struct PieceSlice *f32 = &w->pieces[unit][PIECE_F32], *act = &w->pieces[unit][PIECE_ACT];
    CommTicket ticket = 0;
    if (f32->n_slice)
        ticket = shares->gather_start(shares, memory->f32, w->master + f32->at,
                                      f32->n_slice * (int64_t)sizeof(float));
    if (act->n_slice)
        ticket = shares->gather_start(shares, memory->act, act_at(w->be, w->compute, act->at),
                                      act->n_slice * dtype_bytes(w->be->act_dtype));
    return ticket;
}

CommTicket whole_unit_reduce(const struct Weights *w, int unit, const struct UnitMemory *memory,
                             float *own, struct Comm *shares) {
    CommTicket ticket = 0;
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t n = w->pieces[unit][piece].n_slice;
        if (n) ticket = shares->scatter_sum_start(shares, own, memory->grad[piece], n);
        own += n;
    }
    return ticket;
}

int64_t own_unit_elems(const struct Weights *w, int unit) {
    return w->pieces[unit][PIECE_F32].n_slice + w->pieces[unit][PIECE_ACT].n_slice;
}
