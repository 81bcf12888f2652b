/* How the backend uses cuDNN for convolutions: at all, in parts where the workspace is small, and
 * not where it refuses.  That the numbers are right is tests/kernels/test_conv.c's to say; here
 * they only must not depend on the way. */
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

/* The small workspace holds 8 of the 20 channels, of one sample. */
static const struct ConvShape SHAPE = {.batch = 2,
                                       .in_channels = 20,
                                       .out_channels = 9,
                                       .in = {3, 6, 7},
                                       .out = {3, 3, 3},
                                       .kernel = {3, 4, 4},
                                       .stride = {1, 2, 2},
                                       .padding = {1, 1, 1}};
enum { N_X = 2 * 20 * 126, N_W = 9 * 20 * 48, N_Y = 2 * 9 * 27, N_B = 9 };
enum { SMALL_WORKSPACE = 36 * 1024, N_PARTS = 2 * 3, TINY_WORKSPACE = 4096 };

/* What the operations make of the same random numbers, and how often they ran cuDNN. */
struct Results {
    float y[N_Y], dx[N_X], dw[N_W];
    int64_t forward, backward_data, backward_filter;
};

static void convolve(const struct Backend *be, struct Results *r) {
    enum Dtype act = be->act_dtype;
    void *x = act_random(be, N_X, 1), *w = act_random(be, N_W, 2), *b = act_random(be, N_B, 3);
    void *dy = act_random(be, N_Y, 4), *y = act_random(be, N_Y, 5), *dx = act_random(be, N_X, 6);
    float *dw = be->memory_alloc(be, N_W * (int64_t)sizeof *dw);
    be->conv3d_forward(be, y, x, w, b, &SHAPE);
    be->conv3d_backward_input(be, dx, dy, w, &SHAPE);
    be->conv3d_backward_params(be, dw, NULL, x, dy, &SHAPE);
    act_take(be, r->y, y, act, N_Y);
    act_take(be, r->dx, dx, act, N_X);
    act_take(be, r->dw, dw, DTYPE_F32, N_W);
    void *const inputs[] = {x, w, b, dy};
    for (int i = 0; i < 4; i++) be->memory_free(be, inputs[i]);
}

/* workspace_bytes: 0 for what the backend has. */
static struct Results *results(enum Dtype act_dtype, int64_t workspace_bytes, bool supported) {
    static const cudnnBackendDescriptorType_t operations[] = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR};
    struct Results *r = xcalloc(sizeof *r);
    int64_t *runs[] = {&r->forward, &r->backward_data, &r->backward_filter};
    struct BackendCuda options = {.act_dtype = act_dtype, .deterministic = true};
    struct Backend *be;
    struct Error err;
    setenv("TMD_EMULATED_CONV", supported ? "all" : "nothing", 1);
    TMD_CHECK(backend_cuda_create(options, &be, &err), "%s", err.text);
    if (workspace_bytes) cuda_state(be)->workspace_bytes = workspace_bytes;
    for (int i = 0; i < 3; i++) *runs[i] = -emu_cudnn_runs(operations[i]);
    convolve(be, r);
    for (int i = 0; i < 3; i++) *runs[i] += emu_cudnn_runs(operations[i]);
    be->destroy(be);
    return r;
}

static void check_runs(const struct Results *r, int64_t forward, int64_t data, int64_t filter) {
    assert_int_equal(r->forward, forward);
    assert_int_equal(r->backward_data, data);
    assert_int_equal(r->backward_filter, filter);
}

static void check_same(struct Results *a, const struct Results *b, double act_tolerance,
                       double dw_tolerance) {
    check_close(a->y, b->y, N_Y, act_tolerance);
    check_close(a->dx, b->dx, N_X, act_tolerance);
    check_close(a->dw, b->dw, N_W, dw_tolerance);
    free(a);
}

/* Half a unit in the last place of bfloat16, and a few in that of float32. */
static const double BF16 = 0x1p-8, F32 = 0x1p-20;

static void test_float32(void **state) {
    (void)state;
    struct Results *whole = results(DTYPE_F32, 0, true);
    check_runs(whole, 1, 1, 1);
    struct Results *parts = results(DTYPE_F32, SMALL_WORKSPACE, true);
    check_runs(parts, N_PARTS, N_PARTS, N_PARTS);
    check_same(parts, whole, F32, F32);
    struct Results *plain = results(DTYPE_F32, 0, false);
    check_runs(plain, 0, 0, 0);
    check_same(plain, whole, F32, F32);
    struct Results *no_room = results(DTYPE_F32, TINY_WORKSPACE, true);
    check_runs(no_room, 0, 0, 0);
    check_same(no_room, whole, F32, F32);
    free(whole);
}

static void test_bfloat16(void **state) {
    (void)state;
    struct Results *whole = results(DTYPE_BF16, 0, true);
    check_runs(whole, 1, 1, 1);
    struct Results *parts = results(DTYPE_BF16, SMALL_WORKSPACE, true);
    check_runs(parts, N_PARTS, N_PARTS, N_PARTS);
    check_same(parts, whole, 2.0 * BF16, BF16);
    struct Results *plain = results(DTYPE_BF16, 0, false);
    check_runs(plain, 0, 0, 0);
    check_same(plain, whole, BF16, BF16);
    free(whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float32),
        cmocka_unit_test(test_bfloat16),
    };
    return cmocka_run_group_tests_name("cuda_conv", tests, NULL, NULL);
}
