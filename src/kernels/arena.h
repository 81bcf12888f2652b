/* A stack of device memory for what lives within a step: activations saved for backward, gradients on
 * their way, temporaries.  Allocation moves a counter; release goes back to a mark.  A step run once
 * on the plan backend with a measuring arena tells `peak`, and exactly that much is then allocated. */
#ifndef TMD_ARENA_H
#define TMD_ARENA_H

#include "kernels/backend.h"

struct Arena {
    const struct Backend *be;
    char *base;       /* NULL: measuring */
    int64_t capacity; /* bytes */
    int64_t used, peak;
};

/* Measures: hands out addresses that must not be read, remembers the peak. */
void arena_init_measuring(struct Arena *arena, const struct Backend *be);
/* Allocates n_bytes of the backend's memory. */
void arena_init(struct Arena *arena, const struct Backend *be, int64_t n_bytes);
void arena_free(struct Arena *arena);

/* 64-byte aligned, contents undefined.  Beyond the capacity the program ends: the plan was wrong. */
Act *arena_act(struct Arena *arena, int64_t n_elems);
float *arena_f32(struct Arena *arena, int64_t n_elems);
double *arena_f64(struct Arena *arena, int64_t n_elems);

static inline int64_t arena_mark(const struct Arena *arena) {
    return arena->used;
}
/* Gives back everything taken since the mark. */
static inline void arena_release(struct Arena *arena, int64_t mark) {
    arena->used = mark;
}

#endif
