/* A pass of the DiT: embeddings, blocks, head; backward in the opposite order, down to the
 * embeddings of a trained network or the latent of a frozen one. */
#include "model/wan.h"

#include "error.h"

/* Blocks beyond the last tap matter to the velocity only. */
static int64_t last_block_of(const struct Taps *taps) {
    return taps->blocks->items[taps->blocks->n - 1];
}

static int64_t token_elems(const struct Wan *m, int64_t batch) {
    return batch * m->geometry->tokens * m->config->dim;
}

void wan_forward(const struct Wan *m, struct WanInputs in, float *velocity, const struct Taps *taps,
                 enum Keep keep, struct Arena *arena, struct WanTape *tape) {
    const struct ModelConfig *c = m->config;
    const struct Weights *w = m->weights;
    int64_t mark = arena_mark(arena);
    TMD_CHECK(velocity || taps, "a pass without an output");
    tape->batch = in.batch;
    tape->e = arena_f32(arena, in.batch * c->dim);
    float *e0 = arena_f32(arena, in.batch * 6 * c->dim);
    Act *context = arena_act(arena, in.batch * c->text_len * c->dim);
    Act *tokens = arena_act(arena, token_elems(m, in.batch));

    patch_cut(c, w, m->geometry, in.batch, in.x, arena, &tape->patch);
    patch_embed_forward(c, w, m->geometry, in.batch, tokens, &tape->patch);
    time_embed_forward(c, w, TIME_0_W, in.batch, tape->e, in.host_t, arena, &tape->time);
    time_project_forward(c, w, in.batch, e0, tape->e, arena, &tape->projection);
    text_embed_forward(c, w, in.batch, context, in.text, arena, &tape->text);
    tape->pass = (struct BlockPass){.config = c,
                                    .weights = w,
                                    .batch = in.batch,
                                    .tokens = m->geometry->tokens,
                                    .split = m->geometry->split,
                                    .cos_sin = m->geometry->cos_sin,
                                    .e0 = e0,
                                    .context = context};
    int64_t end = velocity ? c->num_layers : last_block_of(taps) + 1;
    tokens = wan_stack_forward(&tape->pass, m->geometry, tokens, keep, 0, end, in.skip_layers, taps,
                               arena, &tape->stack);
    if (velocity)
        wan_head_forward(c, w, m->geometry, in.batch, velocity, tokens, tape->e, arena, &tape->head);
    if (keep == KEEP_NOTHING) arena_release(arena, mark);
}

static void embeddings_backward(const struct Wan *m, float *dx, const Act *dtokens, float *de,
                                const float *de0, const Act *dcontext, const struct WanTape *tape,
                                struct Arena *arena) {
    const struct ModelConfig *c = m->config;
    const struct Weights *w = m->weights;
    patch_embed_backward(c, w, m->geometry, tape->batch, dx, dtokens, &tape->patch, arena);
    text_embed_backward(c, w, tape->batch, dcontext, &tape->text, arena);
    time_project_backward(c, w, tape->batch, de, de0, &tape->projection, arena);
    time_embed_backward(c, w, TIME_0_W, tape->batch, de, &tape->time, arena);
}

void wan_backward(const struct Wan *m, float *dx, const float *dvelocity, const struct Taps *dtaps,
                  const struct WanTape *tape, bool last, struct Arena *arena) {
    const struct ModelConfig *c = m->config;
    const struct Backend *be = m->weights->be;
    bool trained = m->weights->trained;
    int64_t mark = arena_mark(arena), batch = tape->batch, n_context = batch * c->text_len * c->dim;
    Act *dtokens = arena_act(arena, token_elems(m, batch));
    float *de = NULL;
    struct BlockPassGradients want = {0};
    if (trained) { /* gradients of time and text are wanted only for the layers that embed them */
        de = arena_f32(arena, 7 * batch * c->dim);
        want.de0 = de + batch * c->dim;
        want.dcontext = arena_act(arena, n_context);
        be->zero(be, de, 7 * batch * c->dim * (int64_t)sizeof(float));
        be->zero(be, want.dcontext, n_context * dtype_bytes(be->act_dtype));
    }
    int64_t from = c->num_layers;
    if (dvelocity) {
        wan_head_backward(c, m->weights, m->geometry, batch, dtokens, de, dvelocity, &tape->head, arena);
        if (last && trained) unit_grad_ready(m->weights, unit_head(c));
    } else {
        be->zero(be, dtokens, token_elems(m, batch) * dtype_bytes(be->act_dtype));
        from = last_block_of(dtaps) + 1;
    }
    wan_stack_backward(&tape->pass, m->geometry, dtokens, from, dtaps, &tape->stack, want, last, arena);
    embeddings_backward(m, dx, dtokens, de, want.de0, want.dcontext, tape, arena);
    if (last && trained) unit_grad_ready(m->weights, UNIT_EMBEDDINGS);
    arena_release(arena, mark);
}
