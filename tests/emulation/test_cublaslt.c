/* The emulated cuBLASLt computes products as documented, late, and answers questions about
 * algorithms truthfully. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cublaslt_call.h"
#include "error.h"

static double at(const struct Matrix *x, bool transposed, int64_t row, int64_t col) {
    return (double)x->values[transposed ? row * x->ld + col : col * x->ld + row];
}

static double gelu(double z) {
    return 0.5 * z * (1.0 + tanh(sqrt(2.0 / M_PI) * (z + 0.044715 * z * z * z)));
}

static double gelu_slope(double z) {
    const double step = 1e-5;
    return (gelu(z + step) - gelu(z - step)) / (2.0 * step);
}

static void assert_near(double got, double expected, cudaDataType type) {
    double tolerance = type == CUDA_R_32F ? 1e-5 : 1.0 / 128.0;
    if (!(fabs(got - expected) <= tolerance * (1.0 + fabs(expected))))
        fail_msg("got %g, expected %g", got, expected);
}

static void check_results(struct Call *call, const struct Matrix *old) {
    struct Matrix d = call->d, aux = call->aux, bias = call->bias;
    d.values = xcalloc((size_t)(d.ld * d.cols) * sizeof(float));
    aux.values = xcalloc((size_t)(aux.ld * aux.cols) * sizeof(float));
    bias.values = xcalloc((size_t)(bias.ld * bias.cols) * sizeof(float));
    matrix_download(call, &call->d, d.values);
    matrix_download(call, &call->aux, aux.values);
    matrix_download(call, &call->bias, bias.values);
    for (int64_t i = 0; i < M * N; i++) {
        int64_t row = i % M, col = i / M;
        double value = 0.0;
        for (int64_t k = 0; k < K; k++)
            value +=
                at(&call->a, call->transposed_a, row, k) * at(&call->b, call->transposed_b, k, col);
        value *= (double)call->alpha;
        if (call->beta != 0.0f) value += (double)call->beta * at(old, false, row, col);
        if (call->epilogue == BIAS) value += (double)call->bias.values[row];
        if (call->epilogue == GELU_GRAD) value *= gelu_slope(at(&call->aux, false, row, col));
        if (call->epilogue == GELU) {
            value += (double)call->bias.values[row];
            assert_near(at(&aux, false, row, col), value, aux.type);
            value = gelu(value);
        }
        assert_near(at(&d, false, row, col), value, d.type);
    }
    for (int64_t col = 0; col < N && call->epilogue == SUMS; col++) {
        double sum = 0.0;
        for (int64_t k = 0; k < K; k++) sum += at(&call->b, call->transposed_b, k, col);
        assert_near((double)bias.values[col], sum, bias.type);
    }
    for (int64_t i = 0; i < d.ld * (N - 1); i++) /* what lies between the columns */
        if (i % d.ld >= M) assert_true(d.values[i] == call->d.values[i]);
    free(d.values);
    free(aux.values);
    free(bias.values);
}

static const struct {
    cudaDataType in, out;
} types[] = {{CUDA_R_32F, CUDA_R_32F}, {CUDA_R_16BF, CUDA_R_16BF}, {CUDA_R_16BF, CUDA_R_32F}};
static const uint32_t epilogues[] = {PLAIN, BIAS, GELU, GELU_GRAD, SUMS};

/* Every type, transposition, epilogue, C in and out of place, and algorithm. */
static void test_products(void **state) {
    (void)state;
    int n_checked = 0;
    for (int i = 0; i < 3 * 4 * 5 * 3; i++) {
        struct Variant v = {.in = types[i % 3].in,
                            .out = types[i % 3].out,
                            .transposed_a = i / 3 % 2,
                            .transposed_b = i / 6 % 2,
                            .epilogue = epilogues[i / 12 % 5],
                            .beta = i / 60 > 0 ? 0.5f : 0.0f};
        struct Call call;
        call_begin(&call, v);
        call.in_place = i / 60 != 1;
        call_describe(&call);
        cublasLtMatmulHeuristicResult_t found[MAX_ALGOS];
        int n_found = 0;
        cublasStatus_t status = call_heuristic(&call, found, &n_found);
        bool gelu_f32 = v.out == CUDA_R_32F && (v.epilogue == GELU || v.epilogue == GELU_GRAD);
        assert_int_equal(status, gelu_f32 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS);
        assert_int_equal(n_found > 1, !gelu_f32);
        for (int j = 0; j < n_found; j++) {
            matrix_upload(&call, &call.d);
            matrix_upload(&call, &call.bias);
            if (v.beta == 0.0f) /* C is not read */
                CUDA_OK(cudaMemsetAsync(call.c.device, 0xff, (size_t)call.c.n_bytes, call.stream));
            OK(call_run(&call, &found[j].algo));
            check_results(&call, call.in_place ? &call.d : &call.c);
            n_checked++;
        }
        call_end(&call);
    }
    assert_true(n_checked > 100);
}

/* Nothing is computed before somebody waits, and the workspace is the library's. */
static void test_late(void **state) {
    (void)state;
    struct Call call;
    call_begin(&call, (struct Variant){CUDA_R_32F, CUDA_R_32F, .epilogue = PLAIN});
    call_describe(&call);
    cublasLtMatmulHeuristicResult_t found[MAX_ALGOS];
    int n_found;
    OK(call_heuristic(&call, found, &n_found));
    CUDA_OK(cudaMemsetAsync(call.workspace, 0, call.workspace_bytes, call.stream));
    CUDA_OK(cudaStreamSynchronize(call.stream));
    OK(call_run(&call, &found[0].algo));

    struct Call hasty = call; /* looks at D from a stream that waits for nothing */
    CUDA_OK(cudaStreamCreateWithFlags(&hasty.stream, cudaStreamNonBlocking));
    float *now = xcalloc((size_t)(call.d.ld * call.d.cols) * sizeof *now);
    matrix_download(&hasty, &call.d, now);
    assert_memory_equal(now, call.d.values, (size_t)call.d.n_bytes);
    free(now);
    CUDA_OK(cudaStreamDestroy(hasty.stream));

    check_results(&call, &call.d);
    unsigned char byte;
    CUDA_OK(cudaMemcpyAsync(&byte, call.workspace, 1, cudaMemcpyDeviceToHost, call.stream));
    CUDA_OK(cudaStreamSynchronize(call.stream));
    assert_int_equal(byte, 0xff);
    call_end(&call);
}

/* ---- what the heuristic and the check of an algorithm say */

static void test_heuristic(void **state) {
    (void)state;
    struct Call call;
    call_begin(&call, (struct Variant){CUDA_R_16BF, CUDA_R_16BF, .epilogue = PLAIN});
    call_describe(&call);
    cublasLtMatmulHeuristicResult_t found[MAX_ALGOS], checked;
    int n_found;
    OK(call_heuristic(&call, found, &n_found));
    assert_true(n_found > 1);
    for (int i = 0; i < n_found; i++) {
        OK(found[i].state);
        OK(cublasLtMatmulAlgoCheck(call.handle, call.desc, call.a_layout, call.b_layout,
                                   call.c_layout, call.d_layout, &found[i].algo, &checked));
        assert_int_equal(checked.workspaceSize, found[i].workspaceSize);
        found[i].algo.data[2] ^= 1;
        assert_int_equal(cublasLtMatmulAlgoCheck(call.handle, call.desc, call.a_layout,
                                                 call.b_layout, call.c_layout, call.d_layout,
                                                 &found[i].algo, &checked),
                         CUBLAS_STATUS_INVALID_VALUE);
    }
    call.reductions = CUBLASLT_REDUCTION_SCHEME_NONE; /* no split sums */
    OK(call_heuristic(&call, found, &n_found));
    assert_int_equal(n_found, 1);
    call.workspace_bytes = 0;
    assert_int_equal(call_heuristic(&call, found, &n_found), CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(n_found, 0);
    call.workspace_bytes = WORKSPACE;

    cublasLtMatmulPreference_t preference;
    uint32_t bytes = WORKSPACE; /* it is a uint64_t */
    OK(cublasLtMatmulPreferenceCreate(&preference));
    assert_int_equal(cublasLtMatmulPreferenceSetAttribute(preference,
                                                          CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                          &bytes, sizeof bytes),
                     CUBLAS_STATUS_INVALID_VALUE);
    OK(cublasLtMatmulPreferenceDestroy(preference));
    call_end(&call);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_heuristic),
    };
    return cmocka_run_group_tests_name("cublaslt", tests, NULL, NULL);
}
