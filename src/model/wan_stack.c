#include "model/wan_stack.h"

#include "error.h"

/* What goes from block to block. */
static int64_t block_elems(const struct BlockPass *pass) {
    return pass->batch * pass->tokens * pass->config->dim;
}

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

/* Blocks are made again in groups, of which only the first one's input is kept: the larger a group,
 * the fewer inputs wait, and the more tapes are there at a time.  At Wan2.1's sizes pairs take the
 * least, all the more where another network's inputs wait too (stage two). */
static int64_t group_blocks(enum Keep keep) {
    return keep == KEEP_ALL ? 1 : 2;
}

/* The first block of the group that `block` belongs to. */
static int64_t group_start(const struct StackTape *tape, int64_t block) {
    return block - (block - tape->first) % group_blocks(tape->keep);
}

/* One block: from x to what it returns, which is x itself where nobody will read that again. */
static Act *forward_block(const struct ForwardRun *run, int64_t i, Act *x, bool x_stays) {
    const struct BlockPass *pass = run->pass;
    struct StackTape *tape = run->tape;
    Act *out = x_stays ? arena_act(run->arena, block_elems(pass)) : x;
    int64_t mark = arena_mark(run->arena);
    if (tape->keep == KEEP_ALL) {
        wan_block_forward(pass, i, out, x, run->arena, &tape->blocks[i]);
    } else {
        wan_block_pass(pass, i, out, x, run->arena, &tape->blocks[i]);
        if (tape->keep != KEEP_ATTENTION) arena_release(run->arena, mark);
    }
    return out;
}

static void forward_blocks(void *context) {
    struct ForwardRun *run = context;
    struct StackTape *tape = run->tape;
    Act *x = run->in;
    const Act *kept = NULL;
    for (int64_t i = tape->first; i < tape->end; i++) {
        if (tape->keep != KEEP_NOTHING && i == group_start(tape, i)) tape->inputs[i] = kept = x;
        if (!int_list_has(tape->skip, i)) x = forward_block(run, i, x, x == kept);
        hand_out(run->pass, run->geometry, i, x, run->taps, run->arena);
    }
    run->out = x;
}

/* A pass of which nothing is kept finds the same memory each time it comes: what it needs of the
 * arena it gives back, and weights are where they were, if they stay at all.  What parts exchange,
 * nobody else could do for them. */
static bool comes_often(const struct BlockPass *pass, enum Keep keep, bool units_stay) {
    return keep == KEEP_NOTHING && units_stay && !pass->split;
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
    bool units_stay = unit_pass_begins(pass->weights);
    if (comes_often(pass, keep, units_stay))
        be->run_often(be, forward_blocks, &run);
    else
        forward_blocks(&run);
    return run.out;
}

static void take_back(const struct BlockPass *pass, const struct WanGeometry *g, int64_t block,
                      Act *dx, const struct Taps *dtaps, struct Arena *arena) {
    const struct Backend *be = pass->weights->be;
    int64_t n = block_elems(pass), mark = arena_mark(arena);
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

/* The arguments of wan_stack_backward, and what its groups share. */
struct BackwardRun {
    const struct BlockPass *pass;
    const struct WanGeometry *geometry;
    Act *dx;
    const struct Taps *dtaps;
    const struct StackTape *tape;
    struct BlockPassGradients want;
    bool last;
    Act *room; /* of tapes made again */
    struct Arena *arena;
};

/* From the input x of block i through [i, end), making tapes, and back. */
static void there_and_back(const struct BackwardRun *run, int64_t i, int64_t end, const Act *x) {
    if (i == end) return;
    const struct BlockPass *pass = run->pass;
    struct Arena *arena = run->arena;
    enum Keep keep = run->tape->keep;
    const struct BlockTape *block = &run->tape->blocks[i];
    struct BlockTape again;
    bool skipped = int_list_has(run->tape->skip, i);
    int64_t mark = arena_mark(arena);
    if (keep != KEEP_ALL && !skipped) {
        Act *out = i + 1 < end ? arena_act(arena, block_elems(pass)) : NULL;
        wan_block_again(pass, i, block, keep == KEEP_ATTENTION, out, x, run->room, arena, &again);
        block = &again;
        x = out;
    }
    there_and_back(run, i + 1, end, x);
    take_back(pass, run->geometry, i, run->dx, run->dtaps, arena);
    if (!skipped) wan_block_backward(pass, i, run->dx, block, run->want, arena);
    if (run->last && pass->weights->trained) unit_grad_ready(pass->weights, unit_of_block(i));
    arena_release(arena, mark);
}

void wan_stack_backward(const struct BlockPass *pass, const struct WanGeometry *g, Act *dx,
                        int64_t from, const struct Taps *dtaps, const struct StackTape *tape,
                        struct BlockPassGradients want, bool last, struct Arena *arena) {
    int64_t mark = arena_mark(arena);
    struct BackwardRun run = {.pass = pass,
                              .geometry = g,
                              .dx = dx,
                              .dtaps = dtaps,
                              .tape = tape,
                              .want = want,
                              .last = last,
                              .room = tape->keep == KEEP_ALL ? NULL : arena_act(arena, block_elems(pass)),
                              .arena = arena};
    TMD_CHECK(tape->keep != KEEP_NOTHING, "backward of a pass that kept nothing");
    for (int64_t end = from; end > tape->first;) {
        int64_t start = group_start(tape, end - 1);
        there_and_back(&run, start, end, tape->inputs[start]);
        end = start;
    }
    arena_release(arena, mark);
}
