/* The emulated cuDNN's convolutions are computed as documented, and mistakes in describing one are
 * told: by a status, or, where they would have to be ours, by the end of the program. */
#include <math.h>

#include "child.h"
#include "cudnn_calls.h"

/* ---- a forward convolution in two dimensions, as it should be until a test changes it:
 *     x = 1 2 3    w = 1 2
 *         4 5 6        3 4
 *         7 8 9  */

enum { N_DIMS = 4, N_SPATIAL = 2 };

struct Call {
    cudnnDataType_t type, compute;
    cudnnConvolutionMode_t mode;
    int64_t x[N_DIMS], w[N_DIMS], y[N_DIMS];
    int64_t padding[N_SPATIAL], stride[N_SPATIAL], dilation[N_SPATIAL], n_strides;
    bool channels_last, forget_alpha;
    float alpha, beta;
};

static struct Call good_call(void) {
    return (struct Call){.type = CUDNN_DATA_FLOAT,
                         .compute = CUDNN_DATA_FLOAT,
                         .mode = CUDNN_CROSS_CORRELATION,
                         .x = {1, 1, 3, 3},
                         .w = {1, 1, 2, 2},
                         .y = {1, 1, 2, 2},
                         .stride = {1, 1},
                         .dilation = {1, 1},
                         .n_strides = N_SPATIAL,
                         .channels_last = true,
                         .alpha = 1.0f};
}

static cudnnBackendDescriptor_t tensor(const struct Call *c, int64_t uid, const int64_t *dims) {
    cudnnBackendDescriptor_t d = create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t alignment = 16, plane = dims[2] * dims[3];
    const int64_t last[] = {plane * dims[1], 1, dims[3] * dims[1], dims[1]};
    const int64_t planes[] = {plane * dims[1], plane, dims[3], 1};
    set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &c->type);
    set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, N_DIMS, dims);
    set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, N_DIMS, c->channels_last ? last : planes);
    set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    CUDNN_OK(cudnnBackendFinalize(d));
    return d;
}

static cudnnStatus_t convolution(const struct Call *c, cudnnBackendDescriptor_t *out) {
    const int64_t n = N_SPATIAL;
    cudnnBackendDescriptor_t d = *out = create(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &n);
    set(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &c->compute);
    set(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &c->mode);
    set(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, n, c->dilation);
    set(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, c->n_strides, c->stride);
    set(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, n, c->padding);
    set(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, n, c->padding);
    return cudnnBackendFinalize(d);
}

static cudnnStatus_t operation(const struct Call *c, cudnnBackendDescriptor_t *out) {
    cudnnBackendDescriptor_t conv;
    CUDNN_OK(convolution(c, &conv));
    cudnnBackendDescriptor_t d = *out =
        create(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set_link(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv);
    set_link(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, tensor(c, 'x', c->x));
    set_link(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, tensor(c, 'w', c->w));
    set_link(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, tensor(c, 'y', c->y));
    if (!c->forget_alpha)
        set(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &c->alpha);
    set(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &c->beta);
    return cudnnBackendFinalize(d);
}

/* ---- told by a status */

static cudnnStatus_t operation_status(struct Call c) {
    cudnnBackendDescriptor_t op;
    cudnnStatus_t status = operation(&c, &op);
    CUDNN_OK(cudnnBackendDestroyDescriptor(op));
    return status;
}

static void test_unsupported(void **state) {
    (void)state;
    struct Call c = good_call();
    CUDNN_OK(operation_status(c));
    c.type = CUDNN_DATA_BFLOAT16;
    assert_int_equal(operation_status(c), CUDNN_STATUS_NOT_SUPPORTED_LAYOUT); /* one channel */
    c.x[1] = c.w[1] = c.w[0] = c.y[1] = 8;
    CUDNN_OK(operation_status(c));
    c.channels_last = false;
    assert_int_equal(operation_status(c), CUDNN_STATUS_NOT_SUPPORTED_LAYOUT);
    c.type = CUDNN_DATA_HALF;
    assert_int_equal(operation_status(c), CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE);

    cudnnBackendDescriptor_t conv;
    c.compute = CUDNN_DATA_BFLOAT16;
    assert_int_equal(convolution(&c, &conv), CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE);
    CUDNN_OK(cudnnBackendDestroyDescriptor(conv));
}

/* ---- mistakes */

static bool accepted(struct Call c) {
    return operation_status(c) == CUDNN_STATUS_SUCCESS;
}
static bool wrong_extent(void) {
    struct Call c = good_call();
    c.padding[0] = 1;
    return accepted(c);
}
static bool wrong_channels(void) {
    struct Call c = good_call();
    c.w[1] = 2;
    return accepted(c);
}
static bool wrong_filters(void) {
    struct Call c = good_call();
    c.w[0] = 2;
    return accepted(c);
}
static bool wrong_samples(void) {
    struct Call c = good_call();
    c.y[0] = 2;
    return accepted(c);
}
static bool too_few_strides(void) {
    struct Call c = good_call();
    c.n_strides = 1;
    return accepted(c);
}
static bool no_stride(void) {
    struct Call c = good_call();
    c.stride[1] = 0;
    return accepted(c);
}
static bool no_alpha(void) {
    struct Call c = good_call();
    c.forget_alpha = true;
    return accepted(c);
}

static void test_mistakes(void **state) {
    (void)state;
    expect_rejected(wrong_extent, "y's extent, as it is and as it follows: 2 and 4");
    expect_rejected(wrong_channels, "channels of x and of the filter: 1 and 2");
    expect_rejected(wrong_filters, "filters and channels of y: 2 and 1");
    expect_rejected(wrong_samples, "samples of x and y: 1 and 2");
    expect_rejected(too_few_strides, "2 dimensions with 1 elements");
    expect_rejected(no_stride, "cuDNN: 0 in attribute 103");
    expect_rejected(no_alpha, "lacks attribute 700");
}

/* ---- what is computed */

enum { N_ENGINES = 4, EXACT_ENGINE = 3 };

/* The plan of the last engine that the heuristics name, which has no numerical notes. */
static cudnnBackendDescriptor_t plan_of(cudnnHandle_t handle, cudnnBackendDescriptor_t op) {
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t graph = create(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    set_link(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, op);
    CUDNN_OK(cudnnBackendFinalize(graph));
    cudnnBackendDescriptor_t heuristic = create(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_link(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    CUDNN_OK(cudnnBackendFinalize(heuristic));
    cudnnBackendDescriptor_t configs[N_ENGINES];
    int64_t n = 0;
    for (int i = 0; i < N_ENGINES; i++) configs[i] = create(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    CUDNN_OK(cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, N_ENGINES, &n, configs));
    assert_int_equal(n, N_ENGINES);
    CUDNN_OK(cudnnBackendDestroyDescriptor(heuristic));
    cudnnBackendDescriptor_t plan = create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
        &configs[EXACT_ENGINE]);
    for (int i = 0; i < N_ENGINES; i++) CUDNN_OK(cudnnBackendDestroyDescriptor(configs[i]));
    CUDNN_OK(cudnnBackendFinalize(plan));
    return plan;
}

static void *upload(const float *values, size_t n_elems, cudaStream_t stream) {
    void *device;
    CUDA_OK(cudaMalloc(&device, n_elems * sizeof *values));
    CUDA_OK(
        cudaMemcpyAsync(device, values, n_elems * sizeof *values, cudaMemcpyHostToDevice, stream));
    return device;
}

/* The first element of y, which holds ones before. */
static float computed(struct Call c) {
    const float x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, w[] = {1, 2, 3, 4}, ones[] = {1, 1, 1, 1};
    const int64_t uids[] = {'x', 'w', 'y'};
    cudaStream_t stream;
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t op;
    CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    void *const memory[] = {upload(x, 9, stream), upload(w, 4, stream), upload(ones, 4, stream)};
    void *const workspace = NULL;
    CUDNN_OK(cudnnCreate(&handle));
    CUDNN_OK(cudnnSetStream(handle, stream));
    CUDNN_OK(operation(&c, &op));
    cudnnBackendDescriptor_t plan = plan_of(handle, op);
    cudnnBackendDescriptor_t pack = create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, uids);
    set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, memory);
    set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    CUDNN_OK(cudnnBackendFinalize(pack));
    CUDNN_OK(cudnnBackendExecute(handle, plan, pack));
    float y = NAN;
    CUDA_OK(cudaMemcpyAsync(&y, memory[2], sizeof y, cudaMemcpyDeviceToHost, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
    CUDNN_OK(cudnnBackendDestroyDescriptor(pack));
    CUDNN_OK(cudnnBackendDestroyDescriptor(plan));
    CUDNN_OK(cudnnDestroy(handle));
    for (int i = 0; i < 3; i++) CUDA_OK(cudaFree(memory[i]));
    CUDA_OK(cudaStreamDestroy(stream));
    return y;
}

static void test_computed(void **state) {
    (void)state;
    struct Call c = good_call();
    assert_float_equal(computed(c), 1 + 4 + 12 + 20, 0);
    c.alpha = 2.0f;
    c.beta = 3.0f;
    assert_float_equal(computed(c), 2 * 37 + 3, 0);
    c = good_call();
    c.mode = CUDNN_CONVOLUTION;
    assert_float_equal(computed(c), 4 + 6 + 8 + 5, 0);
    c = good_call();
    c.dilation[0] = c.dilation[1] = 2;
    c.y[2] = c.y[3] = 1;
    assert_float_equal(computed(c), 1 + 6 + 21 + 36, 0);
    c = good_call();
    c.padding[0] = 1;
    c.stride[0] = 2;
    assert_float_equal(computed(c), 3 + 8, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_computed),
    };
    return cmocka_run_group_tests_name("cudnn_conv", tests, NULL, NULL);
}
