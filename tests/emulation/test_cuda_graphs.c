/* Regions that run often, as the CUDA backend keeps them (graph_capture.h): what is a region's key,
 * how many are kept, and what may not lie in one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "child.h"
#include "kernels/cuda/backend_cuda.h"
#include "kernels/cuda/cuda_state.h"
#include "kernels/cuda/graph_capture.h"
#include "kernels/meter/backend_meter.h"

enum { N = 40, PLACES = CUDA_MAX_REGIONS + 6, RUNS = 4 };

static struct Backend *open_backend(void) {
    struct Backend *be;
    struct Error err;
    struct BackendCuda options = {.act_dtype = DTYPE_F32, .graphs = true};
    TMD_CHECK(backend_cuda_create(options, &be, &err), "%s", err.text);
    return be;
}

static float *device_floats(const struct Backend *be, int64_t n) {
    return be->memory_alloc(be, n * (int64_t)sizeof(float));
}

static void fill(const struct Backend *be, float *device, int64_t n, float value) {
    float *host = xmalloc((size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++) host[i] = value;
    be->upload(be, device, host, n * (int64_t)sizeof *host);
    free(host);
}

static void require_all(const struct Backend *be, const float *device, int64_t n, float value) {
    float *host = xmalloc((size_t)n * sizeof *host);
    be->download(be, host, device, n * (int64_t)sizeof *host);
    for (int64_t i = 0; i < n; i++)
        if (host[i] != value) fail_msg("element %d is %g, not %g", (int)i, host[i], value);
    free(host);
}

/* out = in + n_times row, in one operation for each; two rows. */
struct Sum {
    const struct Backend *be;
    float *out, *in, *row;
    int n_times, n_calls;
};

static struct Sum sum_make(const struct Backend *be) {
    return (struct Sum){
        be, device_floats(be, 2 * N), device_floats(be, 2 * N), device_floats(be, N), 2, 0};
}

static void sum_free(struct Sum *s) {
    s->be->memory_free(s->be, s->out);
    s->be->memory_free(s->be, s->in);
    s->be->memory_free(s->be, s->row);
}

static void sum_region(void *context) {
    struct Sum *s = context;
    s->n_calls++;
    for (int i = 0; i < s->n_times; i++)
        s->be->rows_add(s->be, s->out, i ? s->out : s->in, N, s->row, 2, N);
}

/* ---- keys */

/* Listened to and done, listened to and captured, and from then on only listened to. */
static void test_learned(void **state) {
    (void)state;
    static const int n_calls[RUNS] = {2, 4, 5, 6};
    struct Backend *be = open_backend();
    struct Sum s = sum_make(be);
    for (int i = 0; i < RUNS; i++) {
        fill(be, s.in, 2 * N, (float)i);
        fill(be, s.row, N, 10.0f * (float)i);
        fill(be, s.out, 2 * N, -1.0f);
        be->run_often(be, sum_region, &s);
        require_all(be, s.out, 2 * N, 21.0f * (float)i);
        assert_int_equal(s.n_calls, n_calls[i]);
    }
    struct LearnedRegions told = be->learned(be);
    assert_int_equal(told.n_kept, 1);
    assert_int_equal(told.n_launches, RUNS - 1);
    assert_true(told.n_bytes > 0);
    sum_free(&s);
    be->destroy(be);
}

struct Norm {
    const struct Backend *be;
    Act *y;
    const Act *x;
    float *mean, *rstd, *scale, *shift;
    struct NormShape shape;
};

static void norm_region(void *context) {
    struct Norm *n = context;
    n->be->layer_norm_forward(n->be, n->y, n->mean, n->rstd, n->x, n->scale, n->shift, n->shape);
}

/* A change of any argument is seen: addresses, counts, and the numbers inside shapes. */
static void test_every_argument_is_key(void **state) {
    (void)state;
    struct Backend *be = open_backend();
    float *memory = device_floats(be, 8 * N);
    struct Norm n = {be,
                     (Act *)memory,
                     (Act *)(memory + N),
                     memory + 2 * N,
                     memory + 3 * N,
                     memory + 4 * N,
                     memory + 5 * N,
                     {1, 1, N, 0, 0.0f, 1.0f}};
    /* x = 0: y = shift, rstd = 1 / sqrt(eps) */
    fill(be, n.shift, N, 3.0f);
    fill(be, n.shift + N, N, 4.0f);
    for (int i = 0; i < RUNS; i++) {
        n.shape.eps = 1.0f;
        be->run_often(be, norm_region, &n);
        require_all(be, n.rstd, 1, 1.0f);
        n.shape.eps = 0.25f;
        be->run_often(be, norm_region, &n);
        require_all(be, n.rstd, 1, 2.0f);
        n.shift += N;
        be->run_often(be, norm_region, &n);
        require_all(be, memory, N, 4.0f);
        n.shift -= N;
    }
    assert_int_equal(be->learned(be).n_kept, 3);
    assert_int_equal(be->learned(be).n_launches, 3 * (RUNS - 1));

    struct Sum s = sum_make(be);
    fill(be, s.in, 2 * N, 5.0f);
    fill(be, s.row, N, 1.0f);
    for (int i = 0; i < RUNS; i++) /* the shorter region is the longer one's beginning */
        for (s.n_times = 1; s.n_times <= 2; s.n_times++) {
            be->run_often(be, sum_region, &s);
            require_all(be, s.out, 2 * N, 5.0f + (float)s.n_times);
        }
    assert_int_equal(be->learned(be).n_kept, 5);
    sum_free(&s);
    be->memory_free(be, memory);
    be->destroy(be);
}

/* Bytes between the members of a shape mean nothing. */
struct Rotation {
    const struct Backend *be;
    float *memory;
    unsigned char padding;
};

static void rotation_region(void *context) {
    struct Rotation *r = context;
    struct QkNormShape shape;
    memset(&shape, r->padding, sizeof shape);
    shape.batch = 1, shape.tokens = 1, shape.dim = N, shape.heads = 1, shape.x_stride = N;
    shape.eps = 1.0f;
    r->be->qk_norm_forward(r->be, (Act *)r->memory, r->memory + N, (Act *)(r->memory + 2 * N),
                           r->memory + 3 * N, NULL, shape);
}

static void test_padding_is_not(void **state) {
    (void)state;
    struct Backend *be = open_backend();
    struct Rotation r = {.be = be, .memory = device_floats(be, 4 * N)};
    for (int i = 0; i < RUNS; i++) {
        r.padding = (unsigned char)(17 * i);
        be->run_often(be, rotation_region, &r);
    }
    assert_int_equal(be->learned(be).n_kept, 1);
    assert_int_equal(be->learned(be).n_launches, RUNS - 1);
    be->memory_free(be, r.memory);
    be->destroy(be);
}

/* ---- limits */

static void test_no_memory(void **state) {
    (void)state;
    struct Backend *be = open_backend();
    struct Sum s = sum_make(be);
    void *rest;
    assert_int_equal(cudaMalloc(&rest, (size_t)be->memory_available(be) - 4096), cudaSuccess);
    for (int i = 1; i <= RUNS; i++) {
        fill(be, s.in, 2 * N, (float)i);
        be->run_often(be, sum_region, &s);
        require_all(be, s.out, 2 * N, (float)i);
    }
    struct LearnedRegions told = be->learned(be);
    assert_int_equal(told.n_kept, 0);
    assert_int_equal(told.n_bytes, 0);
    assert_int_equal(told.n_launches, 0);
    assert_int_equal(cudaFree(rest), cudaSuccess);
    sum_free(&s);
    be->destroy(be);
}

static void test_more_than_are_kept(void **state) {
    (void)state;
    struct Backend *be = open_backend();
    float *memory = device_floats(be, 4 * N * PLACES);
    struct Sum s = {be, NULL, NULL, device_floats(be, N), 2, 0};
    fill(be, s.row, N, 1.0f);
    for (int i = 0; i < RUNS; i++)
        for (int place = 0; place < PLACES; place++) {
            s.out = memory + 4 * N * place;
            s.in = s.out + 2 * N;
            fill(be, s.in, 2 * N, (float)place);
            be->run_often(be, sum_region, &s);
            require_all(be, s.out, 2 * N, (float)(place + 2));
        }
    assert_int_equal(be->learned(be).n_kept, CUDA_MAX_REGIONS);
    assert_int_equal(be->learned(be).n_launches, CUDA_MAX_REGIONS * (RUNS - 1));
    be->memory_free(be, s.row);
    be->memory_free(be, memory);
    be->destroy(be);
}

static void test_meter_sees_each_operation(void **state) {
    (void)state;
    struct Backend *be = open_backend(), *meter = backend_meter_create(be);
    struct Sum s = sum_make(meter);
    for (int i = 0; i < RUNS; i++) meter->run_often(meter, sum_region, &s);
    assert_int_equal(backend_meter_tallies(meter)[OP_rows_add].calls, 2 * RUNS);
    assert_int_equal(meter->learned(meter).n_kept, 0);
    backend_meter_pause(meter, true);
    for (int i = 0; i < RUNS; i++) meter->run_often(meter, sum_region, &s);
    assert_int_equal(meter->learned(meter).n_kept, 1);
    assert_int_equal(meter->learned(meter).n_launches, RUNS - 1);
    sum_free(&s);
    meter->destroy(meter);
    be->destroy(be);
}

/* ---- what may not lie in a region */

enum Intruder { HOST_COEFFICIENTS, HOST_TIMES, HOST_DATA, REGION, ALLOCATION };
struct Wrong {
    struct Sum sum;
    enum Intruder intruder;
};

static void wrong_region(void *context) {
    struct Wrong *w = context;
    const struct Sum *s = &w->sum;
    const struct Backend *be = s->be;
    double one = 1.0;
    float host[N] = {0};
    switch (w->intruder) {
    case HOST_COEFFICIENTS:
        be->combine(be, s->out, 1, (const float *[]){s->in}, &one, 1, N);
        break;
    case HOST_TIMES:
        be->sinusoid(be, s->out, &one, 1, N);
        break;
    case HOST_DATA:
        be->upload(be, s->in, host, sizeof host);
        break;
    case REGION:
        be->run_often(be, sum_region, &w->sum);
        break;
    case ALLOCATION:
        sum_region(&w->sum);
        be->memory_free(be, be->memory_alloc(be, 8));
        break;
    }
}

static bool run_wrong(enum Intruder intruder) {
    struct Backend *be = open_backend();
    struct Wrong wrong = {sum_make(be), intruder};
    for (int i = 0; i < RUNS; i++) be->run_often(be, wrong_region, &wrong);
    return true;
}
static bool run_coefficients(void) {
    return run_wrong(HOST_COEFFICIENTS);
}
static bool run_times(void) {
    return run_wrong(HOST_TIMES);
}
static bool run_data(void) {
    return run_wrong(HOST_DATA);
}
static bool run_region(void) {
    return run_wrong(REGION);
}
static bool run_allocation(void) {
    return run_wrong(ALLOCATION);
}

static void test_intruders(void **state) {
    (void)state;
    expect_abort(run_coefficients, "combine does not belong into a region");
    expect_abort(run_times, "sinusoid does not belong into a region");
    expect_abort(run_data, "upload does not belong into a region");
    expect_abort(run_region, "lies in another");
    expect_abort(run_allocation, "not permitted when stream is capturing");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learned),
        cmocka_unit_test(test_every_argument_is_key),
        cmocka_unit_test(test_padding_is_not),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_more_than_are_kept),
        cmocka_unit_test(test_meter_sees_each_operation),
        cmocka_unit_test(test_intruders),
    };
    return cmocka_run_group_tests_name("cuda_graphs", tests, NULL, NULL);
}
