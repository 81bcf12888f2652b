/* How the backend uses cuDNN for attention: where it accepts the shape, in rounds where the
 * workspace is small, and not where it would refuse.  That the numbers are right is
 * tests/kernels/test_attention.c's to say; here they only must not depend on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "act_values.h"
#include "cudnn_runs.h"
#include "kernels/cuda/backend_cuda.h"
#include "kernels/cuda/cuda_state.h"

enum { BATCH = 2, HEADS = 5, WIDTH = 16, DIM = HEADS * WIDTH, QUERIES = 300, KEYS = 40 };
enum { N_Q = BATCH * QUERIES * DIM, N_K = BATCH * KEYS * DIM, N_LSE = BATCH * HEADS * QUERIES };
enum { MIB = 1024 * 1024, MATMULS_OF_BACKWARD = 5 };

/* One way to the results. */
struct Way {
    enum Dtype act_dtype;
    bool deterministic, every_plan, only_dq;
    int64_t workspace_bytes; /* 0: what the backend has */
    int64_t misplaced;       /* elements by which q is moved from where it is aligned */
};

struct Results {
    float o[N_Q], lse[N_LSE], dq[N_Q], dk[N_K], dv[N_K];
    int64_t forward_runs, backward_runs;
};

static void attend(const struct Backend *be, struct Way way, struct Results *r) {
    const struct AttentionShape s = {BATCH, HEADS, WIDTH, QUERIES, KEYS, DIM, DIM, DIM, DIM};
    Act *q_memory = act_random(be, N_Q + 8, 1), *k = act_random(be, N_K, 2);
    Act *v = act_random(be, N_K, 3), *grad_o = act_random(be, N_Q, 4), *o = act_random(be, N_Q, 5);
    Act *dq = act_random(be, N_Q, 6), *dk = act_random(be, N_K, 7), *dv = act_random(be, N_K, 8);
    float *lse = be->memory_alloc(be, N_LSE * (int64_t)sizeof *lse);
    Act *q = act_at(be, q_memory, way.misplaced);
    be->attention_forward(be, o, lse, q, k, v, s);
    be->attention_backward(be, dq, way.only_dq ? NULL : dk, way.only_dq ? NULL : dv, grad_o, o, lse,
                           q, k, v, s);
    act_take(be, r->o, o, be->act_dtype, N_Q);
    act_take(be, r->lse, lse, DTYPE_F32, N_LSE);
    act_take(be, r->dq, dq, be->act_dtype, N_Q);
    act_take(be, r->dk, dk, be->act_dtype, N_K);
    act_take(be, r->dv, dv, be->act_dtype, N_K);
    Act *const inputs[] = {q_memory, k, v, grad_o};
    for (int i = 0; i < 4; i++) be->memory_free(be, inputs[i]);
}

static struct Results *results(struct Way way) {
    struct Results *r = xcalloc(sizeof *r);
    struct BackendCuda options = {.act_dtype = way.act_dtype,
                                  .deterministic = way.deterministic,
                                  .every_plan = way.every_plan};
    struct Backend *be;
    struct Error err;
    TMD_CHECK(backend_cuda_create(options, &be, &err), "%s", err.text);
    if (way.workspace_bytes) cuda_state(be)->workspace_bytes = way.workspace_bytes;
    r->forward_runs = -emu_cudnn_runs(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    r->backward_runs = -emu_cudnn_runs(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    attend(be, way, r);
    r->forward_runs += emu_cudnn_runs(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    r->backward_runs += emu_cudnn_runs(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    r->backward_runs /= MATMULS_OF_BACKWARD;
    be->destroy(be);
    return r;
}

/* A few units in the last place of bfloat16. */
static const double BF16 = 0x1p-7, F32 = 0x1p-20;

static void check_same(const struct Results *a, const struct Results *b, double tolerance) {
    check_close(a->o, b->o, N_Q, tolerance);
    check_close(a->lse, b->lse, N_LSE, F32);
    check_close(a->dq, b->dq, N_Q, tolerance);
    check_close(a->dk, b->dk, N_K, tolerance);
    check_close(a->dv, b->dv, N_K, tolerance);
}

/* What `way` gives is what `expected` has, from so many runs of the backward graph. */
static void check_way(struct Way way, const struct Results *expected, int64_t backward_runs) {
    struct Results *r = results(way);
    assert_int_equal(r->backward_runs, backward_runs);
    check_same(r, expected, BF16);
    free(r);
}

/* Two engines for the forward graph: both are timed, then one runs. */
enum { FORWARD_RUNS = 2 * 6 + 1 };

static void test_whole(void **state) {
    (void)state;
    struct Results *ours = results((struct Way){.act_dtype = DTYPE_F32});
    assert_int_equal(ours->forward_runs, 0);
    assert_int_equal(ours->backward_runs, 0);
    struct Results *whole = results((struct Way){.act_dtype = DTYPE_BF16});
    assert_int_equal(whole->forward_runs, FORWARD_RUNS);
    assert_int_equal(whole->backward_runs, 1);
    check_close(whole->o, ours->o, N_Q, BF16);
    check_close(whole->dq, ours->dq, N_Q, 4.0 * BF16); /* of inputs that were rounded */
    free(ours);
    free(whole);
}

/* Both engines, named by each of three heuristics; one alone where the bits must not change. */
static void test_every_plan(void **state) {
    (void)state;
    struct Results *whole = results((struct Way){.act_dtype = DTYPE_BF16});
    struct Way way = {.act_dtype = DTYPE_BF16, .every_plan = true};
    struct Results *every = results(way);
    assert_int_equal(every->forward_runs, 3 * 2 * 6 + 1);
    check_same(every, whole, BF16);
    way.deterministic = true;
    struct Results *first = results(way);
    assert_int_equal(first->forward_runs, 1);
    free(first);
    free(every);
    free(whole);
}

/* The first of the forward graph's engines is tried once, in vain; the other is timed and runs. */
static void test_engine_that_fails(void **state) {
    (void)state;
    struct Results *whole = results((struct Way){.act_dtype = DTYPE_BF16});
    setenv("TMD_EMULATED_CUDNN", "first_fails", 1);
    struct Results *second = results((struct Way){.act_dtype = DTYPE_BF16});
    unsetenv("TMD_EMULATED_CUDNN");
    assert_int_equal(second->forward_runs, 6 + 1);
    check_same(second, whole, BF16);
    free(second);
    free(whole);
}

/* The workspace holds one MiB for engines and, of the scratch of these heads, so much. */
enum {
    HEAD_BYTES = 81600,         /* lse, delta, dq in float32 twice */
    FIXED_ORDER_BYTES = 201408, /* lse, delta, the gradients of 384 x 128 scores in bfloat16 */
    FIXED_ORDER_256_BYTES =
        150528, /* the same for 256 queries, and parts of dk, dv and their sums */
    FIXED_ORDER_128_BYTES = 82944
};

static void test_rounds_of_heads(void **state) {
    (void)state;
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        int64_t head_bytes = deterministic ? FIXED_ORDER_BYTES : HEAD_BYTES;
        struct Way way = {.act_dtype = DTYPE_BF16, .deterministic = deterministic};
        struct Results *whole = results(way);
        assert_int_equal(whole->backward_runs, 1);
        way.workspace_bytes = MIB + HEADS * head_bytes - 1; /* 4 of 5 fit: 3 and 2 */
        check_way(way, whole, 2);
        way.workspace_bytes = MIB + head_bytes + head_bytes / 2;
        check_way(way, whole, HEADS);
        free(whole);
    }
}

static void test_parts_of_queries(void **state) {
    (void)state;
    struct Way way = {.act_dtype = DTYPE_BF16, .deterministic = true};
    struct Results *whole = results(way);
    way.workspace_bytes = MIB + FIXED_ORDER_BYTES - 1;
    check_way(way, whole, HEADS * 2); /* 256 queries, then 44 */
    way.workspace_bytes = MIB + FIXED_ORDER_256_BYTES - 1;
    check_way(way, whole, HEADS * 3); /* 128 each */
    way.workspace_bytes = MIB + FIXED_ORDER_128_BYTES - 1;
    check_way(way, whole, 0); /* no room at all: ours */
    free(whole);
}

static void test_queries_only(void **state) {
    (void)state;
    struct Way way = {.act_dtype = DTYPE_BF16, .only_dq = true};
    struct Results *whole = results(way);
    assert_int_equal(whole->backward_runs, 1);
    way.deterministic = true;
    way.workspace_bytes = MIB + FIXED_ORDER_BYTES - 1;
    struct Results *parts = results(way);
    assert_true(parts->backward_runs > 1);
    check_same(parts, whole, BF16); /* dk and dv hold what was there */
    free(parts);
    free(whole);
}

/* The same numbers from q at a place that is not 16-byte aligned: other ones, and not by cuDNN. */
static void test_misaligned(void **state) {
    (void)state;
    struct Results *r = results((struct Way){.act_dtype = DTYPE_BF16, .misplaced = 4});
    assert_int_equal(r->forward_runs, 0);
    assert_int_equal(r->backward_runs, 0);
    free(r);
    r = results((struct Way){.act_dtype = DTYPE_BF16, .misplaced = 8});
    assert_int_equal(r->forward_runs, FORWARD_RUNS);
    assert_int_equal(r->backward_runs, 1);
    free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_every_plan),
        cmocka_unit_test(test_engine_that_fails),
        cmocka_unit_test(test_rounds_of_heads),
        cmocka_unit_test(test_parts_of_queries),
        cmocka_unit_test(test_queries_only),
        cmocka_unit_test(test_misaligned),
    };
    return cmocka_run_group_tests_name("cuda_attention", tests, NULL, NULL);
}
