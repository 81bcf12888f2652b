/* Forward keeps only the norm's statistics; backward computes its output again where parameter
 * gradients need it. */
#include "model/wan_head.h"

static struct LinearShape head_linear(const struct ModelConfig *c, const struct WanGeometry *g,
                                      int64_t batch) {
    return (struct LinearShape){batch * g->tokens, c->dim, c->out_dim * model_patch_volume(c)};
}

static struct NormShape head_norm(const struct ModelConfig *c, const struct WanGeometry *g,
                                  int64_t batch) {
    return (struct NormShape){batch, g->tokens, c->dim, c->dim, 1.0f, (float)c->eps};
}

void wan_head_forward(const struct ModelConfig *c, const struct Weights *w,
                      const struct WanGeometry *g, int64_t batch, float *velocity, const Act *x,
                      const float *e, struct Arena *arena, struct HeadTape *tape) {
    const struct Backend *be = w->be;
    struct LinearShape shape = head_linear(c, g, batch);
    tape->x = x;
    tape->mean = arena_f32(arena, shape.rows);
    tape->rstd = arena_f32(arena, shape.rows);
    tape->shift = arena_f32(arena, batch * c->dim);
    tape->scale = arena_f32(arena, batch * c->dim);
    int64_t mark = arena_mark(arena);
    Act *h = arena_act(arena, shape.rows * c->dim);
    Act *patches = arena_act(arena, shape.rows * shape.n_out);
    unit_acquire(w, unit_head(c));
    const float *modulation = weight_f32(w, head_param(c, HEAD_MODULATION));
    be->rows_add(be, tape->shift, e, c->dim, modulation, batch, c->dim);
    be->rows_add(be, tape->scale, e, c->dim, modulation + c->dim, batch, c->dim);
    be->layer_norm_forward(be, h, tape->mean, tape->rstd, x, tape->scale, tape->shift,
                           head_norm(c, g, batch));
    be->linear_forward(be, patches, h, weight_act(w, head_param(c, HEAD_W)),
                       weight_act(w, head_param(c, HEAD_B)), shape);
    be->patches_scatter(be, velocity,
                        token_rows_gather(g->split, patches, batch, shape.n_out, arena),
                        wan_patch_shape(c, g->video, batch, c->out_dim, true));
    unit_release(w, unit_head(c));
    arena_release(arena, mark);
}

void wan_head_backward(const struct ModelConfig *c, const struct Weights *w,
                       const struct WanGeometry *g, int64_t batch, Act *dx, float *de,
                       const float *dvelocity, const struct HeadTape *tape, struct Arena *arena) {
    const struct Backend *be = w->be;
    struct LinearShape shape = head_linear(c, g, batch);
    int64_t mark = arena_mark(arena), n_bytes = batch * c->dim * (int64_t)sizeof(float);
    Act *dpatches = arena_act(arena, shape.rows * shape.n_out);
    Act *all = token_rows_to_cut(g->split, dpatches, batch, shape.n_out, arena);
    Act *dh = arena_act(arena, shape.rows * c->dim);
    float *dshift = w->trained ? arena_f32(arena, batch * c->dim) : NULL;
    float *dscale = w->trained ? arena_f32(arena, batch * c->dim) : NULL;
    unit_acquire_backward(w, unit_head(c));
    be->patches_gather(be, all, dvelocity, wan_patch_shape(c, g->video, batch, c->out_dim, true));
    token_rows_cut(g->split, dpatches, all, batch, shape.n_out, be);
    if (w->trained) {
        Act *h = dh; /* computed again rather than kept; its gradient overwrites it below */
        be->layer_norm_forward(be, h, tape->mean, tape->rstd, tape->x, tape->scale, tape->shift,
                               head_norm(c, g, batch));
        be->linear_backward_params(be, weight_grad(w, head_param(c, HEAD_W)),
                                   weight_grad(w, head_param(c, HEAD_B)), h, dpatches, shape);
        be->zero(be, dshift, n_bytes);
        be->zero(be, dscale, n_bytes);
    }
    be->linear_backward_input(be, dh, dpatches, weight_act(w, head_param(c, HEAD_W)), shape, false);
    be->layer_norm_backward(be, dx, dscale, dshift, dh, tape->x, tape->mean, tape->rstd, tape->scale,
                            head_norm(c, g, batch), false);
    if (w->trained) {
        float *dmodulation = weight_grad(w, head_param(c, HEAD_MODULATION));
        be->rows_add_backward(be, de, c->dim, dmodulation, dshift, batch, c->dim);
        be->rows_add_backward(be, de, c->dim, dmodulation + c->dim, dscale, batch, c->dim);
    }
    unit_release(w, unit_head(c));
    arena_release(arena, mark);
}
