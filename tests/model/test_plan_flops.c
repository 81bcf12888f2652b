/* What the plan backend counts, against the sums one does by hand: the forward pass of the two
 * published Wan2.1 sizes at 81 frames of 480 x 832, the backward pass of a block, and what the ways
 * of recomputation cost. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "error.h"
#include "kernels/op_cost.h"
#include "model/wan.h"
#include "wan_sizes.h"

static const struct VideoShape full_video = {.frames = 21, .height = 60, .width = 104};

/* A DiT on the plan backend. */
struct Planned {
    struct Backend *be;
    struct ParamTable table;
    struct Weights weights;
    struct WanGeometry geometry;
    struct Arena arena;
    struct Wan wan;
    struct WanTape tape;
};

static void planned_init(struct Planned *p, const struct ModelConfig *config,
                         struct VideoShape video, int parts) {
    *p = (struct Planned){.be = backend_plan_create(DTYPE_BF16)};
    wan_params(&p->table, config);
    weights_alloc(&p->weights, p->be, &p->table, parts);
    wan_geometry_init(&p->geometry, p->be, config, video);
    arena_init_measuring(&p->arena, p->be);
    p->wan = (struct Wan){.config = config, .weights = &p->weights, .geometry = &p->geometry};
}

static void planned_free(struct Planned *p) {
    wan_geometry_free(&p->geometry, p->be);
    weights_free(&p->weights);
    params_free(&p->table);
    p->be->destroy(p->be);
}

static void run_forward(struct Planned *p, int64_t batch, enum Keep keep) {
    static const double t[] = {0.5, 0.5};
    int64_t n = batch * video_elems(p->geometry.video, p->wan.config->in_dim);
    const struct ModelConfig *c = p->wan.config;
    struct WanInputs in = {.batch = batch,
                           .x = arena_f32(&p->arena, n),
                           .host_t = t,
                           .text = arena_act(&p->arena, batch * c->text_len * c->text_dim)};
    wan_forward(&p->wan, in, arena_f32(&p->arena, n), NULL, keep, &p->arena, &p->tape);
}

static void run_backward(struct Planned *p, int64_t batch) {
    int64_t n = batch * video_elems(p->geometry.video, p->wan.config->in_dim);
    wan_backward(&p->wan, arena_f32(&p->arena, n), arena_f32(&p->arena, n), NULL, &p->tape, true,
                 &p->arena);
}

/* Two flops per term: projections of self-attention (q, k, v, o), of cross-attention (q, o on
 * tokens, k, v on text), the feed-forward layer, the two attentions; then what stands around the
 * blocks. */
static double products_by_hand(const struct ModelConfig *c, double tokens) {
    double d = (double)c->dim, f = (double)c->ffn_dim, text = (double)c->text_len;
    double attention = 2.0 * tokens * (tokens + text) * d;
    double linear = tokens * (6.0 * d * d + 2.0 * d * f) + text * 2.0 * d * d;
    double patch = (double)(c->in_dim * c->patch_size[0] * c->patch_size[1] * c->patch_size[2]);
    double outside = 2.0 * tokens * patch * d + text * ((double)c->text_dim * d + d * d) +
                     (double)c->freq_dim * d + 7.0 * d * d;
    return 2.0 * ((double)c->num_layers * (attention + linear) + outside);
}

static void check_forward(const struct ModelConfig *config, double peta, double attention_share) {
    struct Planned p;
    planned_init(&p, config, full_video, 0);
    run_forward(&p, 1, KEEP_ALL);
    const struct OpTally *tallies = backend_plan_tallies(p.be);
    struct OpTally total = op_tally_total(tallies);
    double attention = tallies[OP_attention_forward].flops,
           by_hand = products_by_hand(config, 32760.0);
    printf("%.4f PFLOP, attention %.1f %%, products by hand %.4f PFLOP\n", 1e-15 * total.flops,
           100.0 * attention / total.flops, 1e-15 * by_hand);
    assert_int_equal(p.geometry.tokens, 32760);
    assert_true(fabs(1e-15 * total.flops - peta) < 0.003 * peta);
    assert_true(fabs(attention / total.flops - attention_share) < 0.01);
    assert_true(total.flops == by_hand); /* both are sums of integers below 2^53 */
    assert_int_equal(tallies[OP_attention_forward].calls, 2 * config->num_layers);
    planned_free(&p);
}

static void test_forward_1_3b(void **state) {
    (void)state;
    check_forward(&wan_1_3b, 0.283, 0.71);
}

static void test_forward_14b(void **state) {
    (void)state;
    check_forward(&wan_14b, 1.68, 0.53);
}

/* A linear layer's backward is two products of its forward's size when it is trained and one when
 * it is frozen; attention's is two and a half. */
static void test_backward(void **state) {
    (void)state;
    static const struct ModelConfig small = {.dim = 64,
                                             .ffn_dim = 128,
                                             .num_heads = 4,
                                             .num_layers = 3,
                                             .freq_dim = 32,
                                             .text_dim = 16,
                                             .text_len = 8,
                                             .in_dim = 4,
                                             .out_dim = 4,
                                             .patch_size = {1, 2, 2},
                                             .eps = 1e-6};
    static const struct VideoShape video = {.frames = 2, .height = 8, .width = 8};
    for (int trained = 0; trained < 2; trained++) {
        struct Planned p;
        planned_init(&p, &small, video, trained ? WEIGHTS_TRAINED : 0);
        run_forward(&p, 2, KEEP_ALL);
        run_backward(&p, 2);
        const struct OpTally *t = backend_plan_tallies(p.be);
        double forward = t[OP_linear_forward].flops + t[OP_linear_gelu_forward].flops;
        double params = t[OP_linear_backward_params].flops;
        double attention = t[OP_attention_backward].flops / t[OP_attention_forward].flops;
        if (trained) {
            assert_true(params == forward);
            assert_true(attention == 2.5);
        } else {
            assert_true(params == 0.0);
            /* cross-attention leaves out dk and dv: 32 keys with five products, 8 with three */
            assert_true(attention == (32.0 * 2.5 + 8.0 * 1.5) / 40.0);
        }
        planned_free(&p);
    }
}

/* A training pass of Wan2.1 1.3B. */
struct PassCost {
    int64_t kept, peak; /* bytes of the arena, between forward and backward and at most */
    struct OpTally attention, linear;
};

static struct PassCost pass_cost(enum Keep keep) {
    struct Planned p;
    struct PassCost cost;
    planned_init(&p, &wan_1_3b, full_video, WEIGHTS_TRAINED);
    run_forward(&p, 1, keep);
    cost.kept = arena_mark(&p.arena);
    run_backward(&p, 1);
    cost.peak = p.arena.peak;
    cost.attention = backend_plan_tallies(p.be)[OP_attention_forward];
    cost.linear = backend_plan_tallies(p.be)[OP_linear_forward];
    planned_free(&p);
    return cost;
}

/* Keeping what the attentions gave, [tokens, dim] and statistics [heads, tokens] of each, does
 * without their second forward and costs little memory.  Those of the two topmost blocks, which are
 * made again together, would lie there anyway when the arena is at its fullest. */
static void test_recomputation(void **state) {
    (void)state;
    const int64_t layers = wan_1_3b.num_layers, tokens = 32760;
    int64_t attended = 2 * tokens * (2 * wan_1_3b.dim + 4 * wan_1_3b.num_heads);
    struct PassCost none = pass_cost(KEEP_ALL), full = pass_cost(KEEP_INPUTS),
                    attention = pass_cost(KEEP_ATTENTION);
    printf("at most %.2f GB with all kept, %.2f GB with inputs, %.2f GB with attentions\n",
           1e-9 * (double)none.peak, 1e-9 * (double)full.peak, 1e-9 * (double)attention.peak);
    /* with inputs: those of every second block, what the last one gives, and what is small */
    assert_true(full.kept < (layers / 2 + 2) * tokens * wan_1_3b.dim * 2);
    assert_int_equal(attended % 128, 0); /* the arena pads nothing */
    assert_int_equal(attention.kept - full.kept, layers * attended);
    assert_int_equal(attention.peak - full.peak, (layers - 2) * attended);
    assert_true(10 * (attention.peak - full.peak) < none.peak - full.peak);
    assert_int_equal(none.attention.calls, 2 * layers);
    assert_int_equal(full.attention.calls, 4 * layers);
    assert_int_equal(attention.attention.calls, 2 * layers);
    assert_true(attention.attention.flops == none.attention.flops);
    assert_int_equal(attention.linear.calls, full.linear.calls);
    assert_true(full.linear.calls > none.linear.calls);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_1_3b),
        cmocka_unit_test(test_forward_14b),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_recomputation),
    };
    return cmocka_run_group_tests_name("plan_flops", tests, NULL, NULL);
}
