/* Each embedding is one or two linear layers, with its backward beside it; and the table of rotary
 * position embeddings. */
#include "model/wan_embed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

/* cos and sin [n_positions, n_pairs, 2] of one axis: pair i turns by position * 10000^(-i / n_pairs). */
static float *axis_turns(int64_t n_positions, int64_t n_pairs) {
    float *turns = xmalloc((unsigned long)(n_positions * n_pairs * 2) * sizeof *turns);
    for (int64_t i = 0; i < n_pairs; i++) {
        double frequency = pow(10000.0, -(double)i / (double)n_pairs);
        for (int64_t position = 0; position < n_positions; position++) {
            float *turn = &turns[2 * (position * n_pairs + i)];
            turn[0] = (float)cos((double)position * frequency);
            turn[1] = (float)sin((double)position * frequency);
        }
    }
    return turns;
}

/* The head_dim / 2 pairs split c - 2 (c / 3), c / 3, c / 3 over frame, row and column.  Source:
 * Wan2.1's rope_params, in float64.  Tokens are many, positions on an axis few. */
static void rotary_table(float *cos_sin, const int64_t grid[3], int64_t half) {
    const int64_t pairs[3] = {half - 2 * (half / 3), half / 3, half / 3};
    float *turns[3];
    for (int axis = 0; axis < 3; axis++) turns[axis] = axis_turns(grid[axis], pairs[axis]);
    for (int64_t f = 0; f < grid[0]; f++)
        for (int64_t h = 0; h < grid[1]; h++)
            for (int64_t w = 0; w < grid[2]; w++) {
                const int64_t position[3] = {f, h, w};
                for (int axis = 0; axis < 3; axis++) {
                    int64_t n = 2 * pairs[axis];
                    memcpy(cos_sin, turns[axis] + position[axis] * n, (size_t)n * sizeof *cos_sin);
                    cos_sin += n;
                }
            }
    for (int axis = 0; axis < 3; axis++) free(turns[axis]);
}

void wan_geometry_init(struct WanGeometry *g, const struct Backend *be, const struct ModelConfig *c,
                       struct VideoShape video) {
    *g = (struct WanGeometry){.video = video,
                              .grid = {video.frames / c->patch_size[0], video.height / c->patch_size[1],
                                       video.width / c->patch_size[2]}};
    g->tokens = g->grid[0] * g->grid[1] * g->grid[2];
    int64_t half = c->dim / c->num_heads / 2, n_bytes = g->tokens * half * 2 * (int64_t)sizeof(float);
    float *host = xmalloc((unsigned long)n_bytes);
    rotary_table(host, g->grid, half);
    g->cos_sin = be->memory_alloc(be, n_bytes);
    be->upload(be, g->cos_sin, host, n_bytes);
    free(host);
}

void wan_geometry_free(struct WanGeometry *g, const struct Backend *be) {
    if (g->cos_sin) be->memory_free(be, g->cos_sin);
    *g = (struct WanGeometry){0};
}

struct WanGeometry wan_geometry_part(const struct WanGeometry *whole, const struct ModelConfig *c,
                                     const struct TokenSplit *split) {
    struct WanGeometry part = *whole;
    TMD_CHECK(!whole->split && split->tokens == whole->tokens, "a split of %lld tokens, not %lld",
              (long long)split->tokens, (long long)whole->tokens);
    part.split = split;
    part.tokens = token_split_own(split);
    part.cos_sin += token_split_first(split, split->part) * (c->dim / c->num_heads);
    return part;
}

struct PatchShape wan_patch_shape(const struct ModelConfig *c, struct VideoShape video, int64_t batch,
                                  int64_t channels, bool channels_last) {
    return (struct PatchShape){.batch = batch,
                               .channels = channels,
                               .frames = video.frames,
                               .height = video.height,
                               .width = video.width,
                               .patch = {c->patch_size[0], c->patch_size[1], c->patch_size[2]},
                               .channels_last = channels_last};
}

static struct LinearShape patch_linear(const struct ModelConfig *c, const struct WanGeometry *g,
                                       int64_t batch) {
    return (struct LinearShape){batch * g->tokens, c->in_dim * model_patch_volume(c), c->dim};
}

void patch_cut(const struct ModelConfig *c, const struct Weights *w, const struct WanGeometry *g,
               int64_t batch, const float *video, struct Arena *arena, struct PatchTape *tape) {
    struct LinearShape shape = patch_linear(c, g, batch);
    tape->patches = arena_act(arena, shape.rows * shape.n_in);
    int64_t mark = arena_mark(arena);
    Act *all = token_rows_to_cut(g->split, tape->patches, batch, shape.n_in, arena);
    w->be->patches_gather(w->be, all, video, wan_patch_shape(c, g->video, batch, c->in_dim, false));
    token_rows_cut(g->split, tape->patches, all, batch, shape.n_in, w->be);
    arena_release(arena, mark);
}

void patch_embed_forward(const struct ModelConfig *c, const struct Weights *w,
                         const struct WanGeometry *g, int64_t batch, Act *tokens,
                         const struct PatchTape *tape) {
    unit_acquire(w, UNIT_EMBEDDINGS);
    w->be->linear_forward(w->be, tokens, tape->patches, weight_act(w, PATCH_W),
                          weight_act(w, PATCH_B), patch_linear(c, g, batch));
    unit_release(w, UNIT_EMBEDDINGS);
}

void patch_embed_backward(const struct ModelConfig *c, const struct Weights *w,
                          const struct WanGeometry *g, int64_t batch, float *dvideo,
                          const Act *dtokens, const struct PatchTape *tape, struct Arena *arena) {
    struct LinearShape shape = patch_linear(c, g, batch);
    int64_t mark = arena_mark(arena);
    unit_acquire_backward(w, UNIT_EMBEDDINGS);
    if (w->trained)
        w->be->linear_backward_params(w->be, weight_grad(w, PATCH_W), weight_grad(w, PATCH_B),
                                      tape->patches, dtokens, shape);
    if (dvideo) {
        Act *dpatches = arena_act(arena, shape.rows * shape.n_in);
        w->be->linear_backward_input(w->be, dpatches, dtokens, weight_act(w, PATCH_W), shape, false);
        w->be->patches_scatter(w->be, dvideo,
                               token_rows_gather(g->split, dpatches, batch, shape.n_in, arena),
                               wan_patch_shape(c, g->video, batch, c->in_dim, false));
    }
    unit_release(w, UNIT_EMBEDDINGS);
    arena_release(arena, mark);
}

void text_embed_forward(const struct ModelConfig *c, const struct Weights *w, int64_t batch,
                        Act *context, const Act *text, struct Arena *arena, struct TextTape *tape) {
    int64_t rows = batch * c->text_len;
    tape->text = text;
    tape->pre = arena_act(arena, rows * c->dim);
    tape->hidden = arena_act(arena, rows * c->dim);
    unit_acquire(w, UNIT_EMBEDDINGS);
    w->be->linear_gelu_forward(w->be, tape->hidden, tape->pre, text, weight_act(w, TEXT_0_W),
                               weight_act(w, TEXT_0_B),
                               (struct LinearShape){rows, c->text_dim, c->dim});
    w->be->linear_forward(w->be, context, tape->hidden, weight_act(w, TEXT_2_W),
                          weight_act(w, TEXT_2_B), (struct LinearShape){rows, c->dim, c->dim});
    unit_release(w, UNIT_EMBEDDINGS);
}

void text_embed_backward(const struct ModelConfig *c, const struct Weights *w, int64_t batch,
                         const Act *dcontext, const struct TextTape *tape, struct Arena *arena) {
    if (!w->trained) return;
    int64_t rows = batch * c->text_len, mark = arena_mark(arena);
    struct LinearShape first = {rows, c->text_dim, c->dim}, second = {rows, c->dim, c->dim};
    Act *dpre = arena_act(arena, rows * c->dim);
    unit_acquire_backward(w, UNIT_EMBEDDINGS);
    w->be->linear_backward_params(w->be, weight_grad(w, TEXT_2_W), weight_grad(w, TEXT_2_B),
                                  tape->hidden, dcontext, second);
    w->be->linear_gelu_backward_input(w->be, dpre, dcontext, weight_act(w, TEXT_2_W), tape->pre,
                                      second);
    w->be->linear_backward_params(w->be, weight_grad(w, TEXT_0_W), weight_grad(w, TEXT_0_B),
                                  tape->text, dpre, first);
    unit_release(w, UNIT_EMBEDDINGS);
    arena_release(arena, mark);
}

void time_embed_forward(const struct ModelConfig *c, const struct Weights *w, int first_param,
                        int64_t batch, float *e, const double *host_t, struct Arena *arena,
                        struct TimeTape *tape) {
    int unit = w->table->params[first_param].unit;
    tape->sinusoid = arena_f32(arena, batch * c->freq_dim);
    tape->pre = arena_f32(arena, batch * c->dim);
    tape->hidden = arena_f32(arena, batch * c->dim);
    unit_acquire(w, unit);
    w->be->sinusoid(w->be, tape->sinusoid, host_t, batch, c->freq_dim);
    w->be->linear_f32_forward(w->be, tape->pre, tape->sinusoid, weight_f32(w, first_param),
                              weight_f32(w, first_param + 1),
                              (struct LinearShape){batch, c->freq_dim, c->dim});
    w->be->silu_forward(w->be, tape->hidden, tape->pre, batch * c->dim);
    w->be->linear_f32_forward(w->be, e, tape->hidden, weight_f32(w, first_param + 2),
                              weight_f32(w, first_param + 3),
                              (struct LinearShape){batch, c->dim, c->dim});
    unit_release(w, unit);
}

void time_embed_backward(const struct ModelConfig *c, const struct Weights *w, int first_param,
                         int64_t batch, const float *de, const struct TimeTape *tape,
                         struct Arena *arena) {
    if (!w->trained) return;
    int unit = w->table->params[first_param].unit;
    int64_t mark = arena_mark(arena), n = batch * c->dim;
    struct LinearShape first = {batch, c->freq_dim, c->dim}, second = {batch, c->dim, c->dim};
    float *dhidden = arena_f32(arena, n), *dpre = arena_f32(arena, n);
    unit_acquire_backward(w, unit);
    w->be->linear_f32_backward_params(w->be, weight_grad(w, first_param + 2),
                                      weight_grad(w, first_param + 3), tape->hidden, de, second);
    w->be->linear_f32_backward_input(w->be, dhidden, de, weight_f32(w, first_param + 2), second);
    w->be->silu_backward(w->be, dpre, dhidden, tape->pre, n, false);
    w->be->linear_f32_backward_params(w->be, weight_grad(w, first_param),
                                      weight_grad(w, first_param + 1), tape->sinusoid, dpre, first);
    unit_release(w, unit);
    arena_release(arena, mark);
}

void time_project_forward(const struct ModelConfig *c, const struct Weights *w, int64_t batch,
                          float *e0, const float *e, struct Arena *arena,
                          struct ProjectionTape *tape) {
    tape->e = e;
    tape->hidden = arena_f32(arena, batch * c->dim);
    unit_acquire(w, UNIT_EMBEDDINGS);
    w->be->silu_forward(w->be, tape->hidden, e, batch * c->dim);
    w->be->linear_f32_forward(w->be, e0, tape->hidden, weight_f32(w, TIME_PROJECTION_W),
                              weight_f32(w, TIME_PROJECTION_B),
                              (struct LinearShape){batch, c->dim, 6 * c->dim});
    unit_release(w, UNIT_EMBEDDINGS);
}

void time_project_backward(const struct ModelConfig *c, const struct Weights *w, int64_t batch,
                           float *de, const float *de0, const struct ProjectionTape *tape,
                           struct Arena *arena) {
    if (!w->trained) return;
    int64_t mark = arena_mark(arena), n = batch * c->dim;
    struct LinearShape shape = {batch, c->dim, 6 * c->dim};
    float *dhidden = arena_f32(arena, n);
    unit_acquire_backward(w, UNIT_EMBEDDINGS);
    w->be->linear_f32_backward_params(w->be, weight_grad(w, TIME_PROJECTION_W),
                                      weight_grad(w, TIME_PROJECTION_B), tape->hidden, de0, shape);
    w->be->linear_f32_backward_input(w->be, dhidden, de0, weight_f32(w, TIME_PROJECTION_W), shape);
    w->be->silu_backward(w->be, de, dhidden, tape->e, n, true);
    unit_release(w, UNIT_EMBEDDINGS);
    arena_release(arena, mark);
}
