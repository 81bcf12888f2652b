#include "model/wan_stack.h"

#include "error.h"

static struct PatchShape tap_shape(const struct BlockPass *pass, const struct WanGeometry *g) {
    const struct ModelConfig *c = pass->config;
    int64_t volume = c->patch_size[0] * c->patch_size[1] * c->patch_size[2];
    return wan_patch_shape(c, g->video, pass->batch, c->dim / volume, true);
}

static void hand_out(const struct BlockPass *pass, const struct WanGeometry *g, int64_t block,
                     const Act *tokens, const struct Taps *taps) {
    for (int k = 0; taps && k < taps->blocks->n; k++)
        if (taps->blocks->items[k] == block)
            pass->weights->be->act_patches_scatter(pass->weights->be, taps->videos[k], tokens,
                                                   tap_shape(pass, g));
}

Act *wan_stack_forward(const struct BlockPass *pass, const struct WanGeometry *g, Act *x,
                       enum Keep keep, int64_t first, int64_t end, const struct IntList *skip,
                       const struct Taps *taps, struct Arena *arena, struct StackTape *tape) {
    TMD_CHECK(end <= WAN_MAX_LAYERS, "%lld blocks", (long long)end);
    tape->keep = keep;
    tape->first = first;
    tape->end = end;
    tape->skip = skip;
    for (int64_t i = first; i < end; i++) {
        if (!int_list_has(skip, i)) {
            Act *out = keep == KEEP_NOTHING
                           ? x
                           : arena_act(arena, pass->batch * pass->tokens * pass->config->dim);
            int64_t mark = arena_mark(arena);
            struct BlockTape passing, *block = keep == KEEP_ALL ? &tape->blocks[i] : &passing;
            tape->inputs[i] = x;
            wan_block_forward(pass, i, out, x, arena, block);
            if (keep != KEEP_ALL) arena_release(arena, mark);
            x = out;
        }
        hand_out(pass, g, i, x, taps);
    }
    return x;
}

static void take_back(const struct BlockPass *pass, const struct WanGeometry *g, int64_t block,
                      Act *dx, const struct Taps *dtaps, struct Arena *arena) {
    const struct Backend *be = pass->weights->be;
    int64_t n = pass->batch * pass->tokens * pass->config->dim, mark = arena_mark(arena);
    for (int k = 0; dtaps && k < dtaps->blocks->n; k++) {
        if (dtaps->blocks->items[k] != block) continue;
        Act *dtokens = arena_act(arena, n);
        be->act_patches_gather(be, dtokens, dtaps->videos[k], tap_shape(pass, g));
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
            if (tape->keep == KEEP_INPUTS) {
                Act *out = arena_act(arena, pass->batch * pass->tokens * pass->config->dim);
                wan_block_forward(pass, i, out, tape->inputs[i], arena, &again);
                block = &again;
            }
            wan_block_backward(pass, i, dx, block, want, arena);
            arena_release(arena, mark);
        }
        if (last && pass->weights->grad) unit_grad_ready(pass->weights, unit_of_block(i));
    }
}
