/* The meter changes no result, and what it books is what the plan counts for the same calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/meter/backend_meter.h"

enum { ROWS = 6, IN = 10, OUT = 8 };

/* A few operations of different families, by value, by pointer, and with optional operands. */
static void call_some(const struct Backend *be, float *y, float *dw, float *db) {
    static const float host_x[ROWS * IN] = {1.0f, 2.0f, -1.0f}, host_w[IN * OUT] = {0.5f, 0.25f};
    struct LinearShape linear = {ROWS, IN, OUT};
    float *x = be->memory_alloc(be, sizeof host_x), *w = be->memory_alloc(be, sizeof host_w);
    float *b = be->memory_alloc(be, OUT * sizeof *b);
    double *norm = be->memory_alloc(be, sizeof *norm), host_norm;
    be->upload(be, x, host_x, sizeof host_x);
    be->upload(be, w, host_w, sizeof host_w);
    be->linear_f32_forward(be, y, x, w, b, linear);
    be->linear_f32_backward_params(be, dw, db, x, y, linear);
    be->linear_f32_backward_params(be, dw, NULL, x, y, linear);
    be->add_f32(be, y, y, y, ROWS * OUT);
    be->norm_squared(be, norm, y, ROWS * OUT);
    be->download(be, &host_norm, norm, sizeof host_norm);
    void *memory[] = {x, w, b, norm};
    for (int i = 0; i < 4; i++) be->memory_free(be, memory[i]);
}

static void test_same_result_same_count(void **state) {
    (void)state;
    struct Backend *cpu = backend_cpu_create(), *meter = backend_meter_create(cpu);
    struct Backend *plan = backend_plan_create(cpu->act_dtype);
    float y[2][ROWS * OUT] = {{0}}, dw[2][IN * OUT] = {{0}}, db[2][OUT] = {{0}};
    call_some(cpu, y[0], dw[0], db[0]);
    call_some(meter, y[1], dw[1], db[1]);
    call_some(plan, y[1], dw[1], db[1]);
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    assert_memory_equal(dw[0], dw[1], sizeof dw[0]);
    assert_memory_equal(db[0], db[1], sizeof db[0]);
    assert_true(y[0][0] != 0.0f && dw[0][0] != 0.0f);

    const struct OpTally *booked = backend_meter_tallies(meter),
                         *planned = backend_plan_tallies(plan);
    for (int op = 0; op < OP_COUNT; op++) {
        assert_int_equal(booked[op].calls, planned[op].calls);
        assert_true(booked[op].flops == planned[op].flops);
        assert_true(booked[op].bytes == planned[op].bytes);
        assert_true((booked[op].seconds > 0.0) == (booked[op].calls > 0));
        assert_true(planned[op].seconds == 0.0);
    }
    assert_int_equal(op_tally_total(booked).calls, 8);
    assert_int_equal(booked[OP_linear_f32_backward_params].calls, 2);
    assert_true(booked[OP_linear_f32_forward].flops == 2.0 * ROWS * IN * OUT);
    assert_true(booked[OP_linear_f32_forward].bytes ==
                sizeof(float) * (ROWS * (IN + OUT) + IN * OUT + OUT));
    assert_true(booked[OP_upload].bytes == sizeof(float) * (ROWS * IN + IN * OUT));

    backend_meter_reset(meter);
    assert_int_equal(op_tally_total(booked).calls, 0);
    meter->destroy(meter);
    plan->destroy(plan);
    cpu->destroy(cpu);
}

static void test_no_entry_missing(void **state) {
    (void)state;
    struct Backend *cpu = backend_cpu_create(), *meter = backend_meter_create(cpu);
    int n_entries = 0;
#define CHECK_ENTRY(op, params, names)                                                             \
    assert_non_null(meter->op);                                                                    \
    assert_true(meter->op != cpu->op);                                                             \
    assert_string_equal(op_name(OP_##op), #op);                                                    \
    n_entries++;
    MEMORY_OPS(CHECK_ENTRY)
    COMPUTE_OPS(CHECK_ENTRY)
    assert_int_equal(n_entries, OP_COUNT);
    meter->destroy(meter);
    cpu->destroy(cpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_result_same_count),
        cmocka_unit_test(test_no_entry_missing),
    };
    return cmocka_run_group_tests_name("meter", tests, NULL, NULL);
}
