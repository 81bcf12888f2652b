#include "model/wan_stack.h"

#include "error.h"

static struct PatchShape tap_shape(const struct BlockPass *pass, const struct WanGeometry *g) {
    const struct ModelConfig *c = pass->config;
    int64_t volume = c->patch_size[0] * c->patch_size[1] * c->patch_size[2];
    return wan_patch_shape(c, g->video, pass->batch, c->dim / volume, true);
}

static void hand_out(const struct BlockPass *pass, const struct WanGeometry *g, int64_t block,
                     const Act *tokens, const struct Taps *taps, struct Arena *arena) {
    const struct Backend *be = pass->weights->be;
    int64_t mark = arena_mark(arena);
    for (int k = 0; taps && k < taps->blocks->n; k++) {
        if (taps->blocks->items[k] != block) continue;
        const Act *all =
            token_rows_gather(g->split, tokens, pass->batch, pass->config->dim, arena);
        be->act_patches_scatter(be, taps->videos[k], all, tap_shape(pass, g));
    }
    arena_release(arena, mark);
}

/* The arguments of wan_stack_forward, for a function that gets one pointer. */
struct ForwardRun {
    const struct BlockPass *pass;
    const struct WanGeometry *geometry;
    Act *in, *out;
    const struct Taps *taps;
    struct Arena *arena;
    struct StackTape *tape;
};

static void forward_blocks(void *context) {
    struct ForwardRun *run = context;
    const struct BlockPass *pass = run->pass;
    struct StackTape *tape = run->tape;
    Act *x = run->in;
    for (int64_t i = tape->first; i < tape->end; i++) {
        if (!int_list_has(tape->skip, i)) {
            Act *out = tape->keep == KEEP_NOTHING
                           ? x
                           : arena_act(run->arena, pass->batch * pass->tokens * pass->config->dim);
            int64_t mark = arena_mark(run->arena);
            struct BlockTape *block = &tape->blocks[i];
            wan_block_forward(pass, i, out, x, run->arena, block);
            if (tape->keep != KEEP_ALL)
                arena_release(run->arena, tape->keep == KEEP_ATTENTION ? block->attended : mark);
            x = out;
        }
        hand_out(pass, run->geometry, i, x, run->taps, run->arena);
    }
    run->out = x;
}

/* A pass of which nothing is kept finds the same memory each time it comes: what it needs of the
 * arena it gives back.  With hooks, weights come and go instead of staying where they are; and what
 * parts exchange, nobody else could do for them. */
static bool comes_often(const struct BlockPass *pass, enum Keep keep) {
    return keep == KEEP_NOTHING && !pass->weights->hooks.acquire && !pass->split;
}

Act *wan_stack_forward(const struct BlockPass *pass, const struct WanGeometry *g, Act *x,
                       enum Keep keep, int64_t first, int64_t end, const struct IntList *skip,
                       const struct Taps *taps, struct Arena *arena, struct StackTape *tape) {
    TMD_CHECK(end <= WAN_MAX_LAYERS, "%lld blocks", (long long)end);
    const struct Backend *be = pass->weights->be;
    tape->keep = keep;
    tape->first = first;
    tape->end = end;
    tape->skip = skip;
    struct ForwardRun run = {
        .pass = pass, .geometry = g, .in = x, .taps = taps, .arena = arena, .tape = tape};
    if (comes_often(pass, keep))
        be->run_often(be, forward_blocks, &run);
    else
        forward_blocks(&run);
    return run.out;
}

static void take_back(const struct BlockPass *pass, const struct WanGeometry *g, int64_t block,
                      Act *dx, const struct Taps *dtaps, struct Arena *arena) {
    const struct Backend *be = pass->weights->be;
    int64_t n = pass->batch * pass->tokens * pass->config->dim, mark = arena_mark(arena);
    for (int k = 0; dtaps && k < dtaps->blocks->n; k++) {
        if (dtaps->blocks->items[k] != block) continue;
        Act *dtokens = arena_act(arena, n);
        Act *all = token_rows_to_cut(g->split, dtokens, pass->batch, pass->config->dim, arena);
        be->act_patches_gather(be, all, dtaps->videos[k], tap_shape(pass, g));
        token_rows_cut(g->split, dtokens, all, pass->batch, pass->config->dim, be);
        be->act_add(be, dx, dx, dtokens, n);
    }
    arena_release(arena, mark);
}

void wan_stack_backward(const struct BlockPass *pass, const struct WanGeometry *g, Act *dx,
                        int64_t from, const struct Taps *dtaps, const struct StackTape *tape,
                        struct BlockPassGradients want, bool last, struct Arena *arena) {
    TMD_CHECK(tape->keep != KEEP_NOTHING, "backward of a pass that kept nothing");
    for (int64_t i = from - 1; i >= tape->first; i--) {
        take_back(pass, g, i, dx, dtaps, arena);
        if (!int_list_has(tape->skip, i)) {
            int64_t mark = arena_mark(arena);
            struct BlockTape again;
            const struct BlockTape *block = &tape->blocks[i];
            if (tape->keep != KEEP_ALL) {
                wan_block_again(pass, i, block, tape->keep == KEEP_ATTENTION, arena, &again);
                block = &again;
            }
            wan_block_backward(pass, i, dx, block, want, arena);
            arena_release(arena, mark);
        }
        if (last && pass->weights->trained) unit_grad_ready(pass->weights, unit_of_block(i));
    }
}
