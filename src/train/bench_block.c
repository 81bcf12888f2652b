/* One block of the DiT, forward and backward. */
#include <stdlib.h>

#include "model/wan.h"
#include "train/bench.h"

/* A model of one block on some backend; run once over the plan backend it tells the arena's size.
 */
struct BlockBench {
    const struct Backend *be;
    struct ModelConfig model;
    struct ParamTable table;
    struct Weights weights;
    struct WanGeometry geometry;
    struct Arena arena;
    struct BlockPass pass;
    struct BlockPassGradients gradients;
    struct BlockTape tape;
    Act *x, *dx;
};

static void block_init(struct BlockBench *b, const struct Backend *be,
                       const struct ModelConfig *model, int64_t batch, struct VideoShape video) {
    *b = (struct BlockBench){.be = be, .model = *model};
    b->model.num_layers = 1;
    wan_params(&b->table, &b->model);
    weights_alloc(&b->weights, be, &b->table, WEIGHTS_TRAINED);
    wan_geometry_init(&b->geometry, be, &b->model, video);
    int64_t rows = batch * b->geometry.tokens, text_rows = batch * model->text_len;
    int64_t act = model->dim * dtype_bytes(be->act_dtype);
    int64_t modulation = batch * 6 * model->dim * (int64_t)sizeof(float);
    b->x = be->memory_alloc(be, rows * act);
    b->dx = be->memory_alloc(be, rows * act);
    b->gradients = (struct BlockPassGradients){.de0 = be->memory_alloc(be, modulation),
                                               .dcontext = be->memory_alloc(be, text_rows * act)};
    b->pass = (struct BlockPass){.config = &b->model,
                                 .weights = &b->weights,
                                 .batch = batch,
                                 .tokens = b->geometry.tokens,
                                 .cos_sin = b->geometry.cos_sin,
                                 .e0 = be->memory_alloc(be, modulation),
                                 .context = be->memory_alloc(be, text_rows * act)};
}

static void block_free(struct BlockBench *b) {
    void *memory[] = {b->x,
                      b->dx,
                      b->gradients.de0,
                      b->gradients.dcontext,
                      (void *)(uintptr_t)b->pass.e0,
                      (void *)(uintptr_t)b->pass.context};
    for (int i = 0; i < 6; i++) b->be->memory_free(b->be, memory[i]);
    wan_geometry_free(&b->geometry, b->be);
    weights_free(&b->weights);
    params_free(&b->table);
    arena_free(&b->arena);
}

/* Weights as a fresh network has them, activations from N(0, 1). */
static void block_fill(struct BlockBench *b) {
    const struct Backend *be = b->be;
    float *host = xmalloc((size_t)b->table.n_elems * sizeof *host);
    params_initialise(&b->table, 1, host);
    weights_upload(&b->weights, host);
    free(host);
    int64_t n = b->pass.batch * b->pass.tokens * b->model.dim;
    float *noise = be->memory_alloc(be, n * (int64_t)sizeof *noise);
    be->normal_fill(be, noise, 1, 0, 0, 1, n);
    be->act_from_f32(be, b->x, noise, n);
    be->act_from_f32(be, b->dx, noise, n);
    be->memory_free(be, noise);
}

static void run_forward(void *context) {
    struct BlockBench *b = context;
    int64_t mark = arena_mark(&b->arena);
    Act *out = arena_act(&b->arena, b->pass.batch * b->pass.tokens * b->model.dim);
    wan_block_forward(&b->pass, 0, out, b->x, &b->arena, &b->tape);
    arena_release(&b->arena, mark);
}

static void run_both(void *context) {
    struct BlockBench *b = context;
    int64_t mark = arena_mark(&b->arena), n = b->pass.batch * b->pass.tokens * b->model.dim;
    Act *out = arena_act(&b->arena, n), *dx = arena_act(&b->arena, n);
    wan_block_forward(&b->pass, 0, out, b->x, &b->arena, &b->tape);
    b->be->copy(b->be, dx, b->dx, n * dtype_bytes(b->be->act_dtype));
    wan_block_backward(&b->pass, 0, dx, &b->tape, b->gradients, &b->arena);
    arena_release(&b->arena, mark);
}

/* Bytes of arena that run_both takes, and the cost of each of the two runs. */
static int64_t block_plan(const struct BlockBench *b, struct OpTally *forward,
                          struct OpTally *both) {
    struct Backend *be = backend_plan_create(b->be->act_dtype);
    struct BlockBench planned;
    block_init(&planned, be, &b->model, b->pass.batch, b->geometry.video);
    arena_init_measuring(&planned.arena, be);
    run_forward(&planned);
    *forward = op_tally_total(backend_plan_tallies(be));
    run_both(&planned);
    *both = op_tally_total(backend_plan_tallies(be));
    both->flops -= forward->flops;
    both->bytes -= forward->bytes;
    int64_t peak = planned.arena.peak;
    block_free(&planned);
    be->destroy(be);
    return peak;
}

void bench_block(struct BenchReport *report, const struct Backend *be,
                 const struct ModelConfig *model, int64_t batch, struct VideoShape video) {
    struct BlockBench b;
    struct OpTally forward, both;
    block_init(&b, be, model, batch, video);
    arena_init(&b.arena, be, block_plan(&b, &forward, &both));
    block_fill(&b);
    bench_section(report, "one block: dim %lld, %lld heads, batch %lld x %lld tokens",
                  (long long)model->dim, (long long)model->num_heads, (long long)batch,
                  (long long)b.geometry.tokens);
    forward.calls = both.calls = 1;
    forward.seconds = bench_time(report, run_forward, &b);
    both.seconds = bench_time(report, run_both, &b);
    bench_row(report, "forward", forward);
    bench_row(report, "forward and backward", both);
    block_free(&b);
}
