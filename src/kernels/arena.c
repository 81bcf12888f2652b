/* The measuring arena does the same arithmetic on addresses that nobody reads. */
#include "kernels/arena.h"

#include "error.h"

enum { ARENA_ALIGNMENT = 64 };

void arena_init_measuring(struct Arena *arena, const struct Backend *be) {
    *arena = (struct Arena){.be = be, .capacity = INT64_MAX};
}

void arena_init(struct Arena *arena, const struct Backend *be, int64_t n_bytes) {
    *arena = (struct Arena){.be = be, .capacity = n_bytes};
    arena->base = be->memory_alloc(be, n_bytes);
}

void arena_free(struct Arena *arena) {
    if (arena->base) arena->be->memory_free(arena->be, arena->base);
    *arena = (struct Arena){0};
}

static void *arena_take(struct Arena *arena, int64_t n_bytes) {
    int64_t rounded = (n_bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    TMD_CHECK(n_bytes >= 0 && rounded <= arena->capacity - arena->used,
              "the step needs %lld more bytes than planned (used %lld of %lld)", (long long)n_bytes,
              (long long)arena->used, (long long)arena->capacity);
    /* A measuring arena starts one alignment above NULL, so that its addresses are never NULL. */
    uintptr_t address = (uintptr_t)arena->base + (arena->base ? 0 : ARENA_ALIGNMENT);
    void *memory = (void *)(address + (uintptr_t)arena->used);
    arena->used += rounded;
    if (arena->used > arena->peak) arena->peak = arena->used;
    return memory;
}

Act *arena_act(struct Arena *arena, int64_t n_elems) {
    return arena_take(arena, n_elems * dtype_bytes(arena->be->act_dtype));
}

float *arena_f32(struct Arena *arena, int64_t n_elems) {
    return arena_take(arena, n_elems * (int64_t)sizeof(float));
}

double *arena_f64(struct Arena *arena, int64_t n_elems) {
    return arena_take(arena, n_elems * (int64_t)sizeof(double));
}
