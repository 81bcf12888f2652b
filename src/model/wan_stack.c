/* The loop over blocks, and what backward has to compute again of what forward did not keep. */
#include "model/wan_stack.h"

#include "error.h"

/* Elements of the tokens that go from block to block. */
static int64_t block_elems(const struct BlockPass *pass) {
    return pass->batch * pass->tokens * pass->config->dim;
}

static struct PatchShape tap_shape(const struct BlockPass *pass, const struct WanGeometry *g) {
    const struct ModelConfig *c = pass->config;
    return wan_patch_shape(c, g->video, pass->batch, c->dim / model_patch_volume(c), true);
}

/* Writes the output of `block` to the taps that name it. */
static void write_taps(const struct BlockPass *pass, const struct WanGeometry *g, int64_t block,
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

/* The arguments of wan_stack_forward, for run_often, whose regions get one pointer. */
struct ForwardRun {
    const struct BlockPass *pass;
    const struct WanGeometry *geometry;
    Act *in, *out;
    const struct Taps *taps;
    struct Arena *arena;
    struct StackTape *tape;
};

/* Backward computes blocks again in groups, and forward keeps the input of each group's first block
 * only.  Larger groups keep fewer inputs, but need the tapes of more blocks at a time.  At Wan2.1's
 * sizes pairs need the least memory, all the more where another network's inputs wait too (stage
 * two). */
static int64_t group_blocks(enum Keep keep) {
    return keep == KEEP_ALL ? 1 : 2;
}

/* The first block of the group that `block` belongs to. */
static int64_t group_start(const struct StackTape *tape, int64_t block) {
    return block - (block - tape->first) % group_blocks(tape->keep);
}

/* Takes x through block i.  Returns the output, which takes the place of x unless x is kept. */
static Act *forward_block(const struct ForwardRun *run, int64_t i, Act *x, bool keep_x) {
    const struct BlockPass *pass = run->pass;
    struct StackTape *tape = run->tape;
    Act *out = keep_x ? arena_act(run->arena, block_elems(pass)) : x;
    int64_t mark = arena_mark(run->arena);
    if (tape->keep == KEEP_ALL) {
        wan_block_forward(pass, i, out, x, run->arena, &tape->blocks[i]);
    } else {
        wan_block_forward_lean(pass, i, out, x, run->arena, &tape->blocks[i]);
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
        write_taps(run->pass, run->geometry, i, x, run->taps, run->arena);
    }
    run->out = x;
}

/* Whether a device may learn this pass and repeat it as a whole (run_often).  The pass must use the
 * same memory each time: it keeps nothing, so that the arena is as before, and the weights stay in
 * place.  And it must not exchange tokens with other ranks, which is no operation of the backend. */
static bool is_repeatable(const struct BlockPass *pass, enum Keep keep, bool units_stay) {
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
    if (is_repeatable(pass, keep, units_stay))
        be->run_often(be, forward_blocks, &run);
    else
        forward_blocks(&run);
    return run.out;
}

/* dx += the gradients of the taps that name `block`. */
static void add_tap_gradients(const struct BlockPass *pass, const struct WanGeometry *g,
                              int64_t block, Act *dx, const struct Taps *dtaps,
                              struct Arena *arena) {
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
    Act *room; /* see struct BlockTape */
    struct Arena *arena;
};

/* Backward through the blocks [i, end), given the input x of block i.  On the way up it computes
 * the tapes that were not kept; on the way back each block's backward uses its tape, and gives it
 * back. */
static void backward_group(const struct BackwardRun *run, int64_t i, int64_t end, const Act *x) {
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
        wan_block_recompute(pass, i, block, keep == KEEP_ATTENTION, out, x, run->room, arena, &again);
        block = &again;
        x = out;
    }
    backward_group(run, i + 1, end, x);
    add_tap_gradients(pass, run->geometry, i, run->dx, run->dtaps, arena);
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
        backward_group(&run, start, end, tape->inputs[start]);
        end = start;
    }
    arena_release(arena, mark);
}
