/* One block of the DiT, forward and backward. */
#include "model/wan.h"
#include "train/bench.h"

/* A model of one block on some backend; run once over the plan backend it tells the arena's size.
 */
struct BlockBench {
    struct BenchOperands operands;
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
                       const struct BenchSize *size) {
    *b = (struct BlockBench){.operands = {.be = be}, .model = *size->model};
    b->model.num_layers = 1;
    wan_params(&b->table, &b->model);
    weights_alloc(&b->weights, be, &b->table, WEIGHTS_TRAINED);
    wan_geometry_init(&b->geometry, be, &b->model, size->video);
    struct BenchOperands *o = &b->operands;
    int64_t dim = b->model.dim, n = size->batch * b->geometry.tokens * dim;
    int64_t n_text = size->batch * b->model.text_len * dim, n_modulation = size->batch * 6 * dim;
    b->x = bench_acts(o, n);
    b->dx = bench_acts(o, n);
    b->gradients = (struct BlockPassGradients){.de0 = bench_zero_floats(o, n_modulation),
                                               .dcontext = bench_acts(o, n_text)};
    b->pass = (struct BlockPass){.config = &b->model,
                                 .weights = &b->weights,
                                 .batch = size->batch,
                                 .tokens = b->geometry.tokens,
                                 .cos_sin = b->geometry.cos_sin,
                                 .e0 = bench_zero_floats(o, n_modulation),
                                 .context = bench_acts(o, n_text)};
}

static void block_free(struct BlockBench *b) {
    const struct Backend *be = b->operands.be;
    bench_operands_free(&b->operands);
    wan_geometry_free(&b->geometry, be);
    weights_free(&b->weights);
    params_free(&b->table);
    arena_free(&b->arena);
}

/* Forward on `be`, which is the block's own or a meter round it. */
static void forward(const struct Backend *be, struct BlockBench *b) {
    Act *out = arena_act(&b->arena, b->pass.batch * b->pass.tokens * b->model.dim);
    b->weights.be = be;
    wan_block_forward(&b->pass, 0, out, b->x, &b->arena, &b->tape);
}

static void run_forward(const struct Backend *be, void *context) {
    struct BlockBench *b = context;
    int64_t mark = arena_mark(&b->arena);
    forward(be, b);
    arena_release(&b->arena, mark);
    b->weights.be = b->operands.be;
}

static void run_both(const struct Backend *be, void *context) {
    struct BlockBench *b = context;
    int64_t mark = arena_mark(&b->arena), n = b->pass.batch * b->pass.tokens * b->model.dim;
    forward(be, b);
    Act *dx = arena_act(&b->arena, n);
    be->copy(be, dx, b->dx, n * dtype_bytes(be->act_dtype));
    wan_block_backward(&b->pass, 0, dx, &b->tape, b->gradients, &b->arena);
    arena_release(&b->arena, mark);
    b->weights.be = b->operands.be;
}

/* Bytes of arena that run_both takes. */
static int64_t arena_peak(enum Dtype act_dtype, const struct BenchSize *size) {
    struct Backend *be = backend_plan_create(act_dtype);
    struct BlockBench planned;
    block_init(&planned, be, size);
    arena_init_measuring(&planned.arena, be);
    run_both(be, &planned);
    int64_t peak = planned.arena.peak;
    block_free(&planned);
    be->destroy(be);
    return peak;
}

void bench_block(struct BenchReport *report, const struct Backend *be, const struct BenchSize *size,
                 double part_seconds) {
    struct BlockBench b;
    block_init(&b, be, size);
    arena_init(&b.arena, be, arena_peak(be->act_dtype, size));
    bench_random_weights(&b.weights);
    bench_section(report, "one block: dim %lld, %lld heads, batch %lld x %lld tokens",
                  (long long)b.model.dim, (long long)b.model.num_heads, (long long)size->batch,
                  (long long)b.geometry.tokens);
    struct OpTally once = bench_measure(report, be, run_forward, &b);
    struct OpTally both = bench_measure(report, be, run_both, &b);
    bench_row(report, "forward", once);
    bench_row(report, "forward and backward", both);
    bench_ratio(report, "forward and backward / its bare products and attentions",
                both.seconds / part_seconds, BENCH_AT_MOST, 1.12);
    bench_utilisation(report, 3.0 * once.flops, both.seconds, 0.49);
    block_free(&b);
}
