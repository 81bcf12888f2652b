/* The emulated cuDNN's graph machinery and its attention: mistakes in the use of descriptors end
 * the program with a message that names them, and what the library does not support is a status. */
#include <string.h>

#include "child.h"
#include "cudnn_calls.h"

/* ---- an attention of 8 queries and 16 keys, as it should be until a test changes it */

enum { HEADS = 2, WIDTH = 64, QUERIES = 8, KEYS = 16, N_TENSORS = 6, ROOM = 64 * 1024 };
enum Uid { Q = 1, K, V, O, STATS, SCALE };

struct Attention {
    cudnnDataType_t type;
    int64_t width, keys, row_gap, n_strides;
    int64_t uids[N_TENSORS + 1];           /* by enum Uid */
    cudnnBackendAttributeName_t forgotten; /* 0: none */
    bool scale_on_device;
};

static struct Attention good(void) {
    return (struct Attention){.type = CUDNN_DATA_BFLOAT16,
                              .width = WIDTH,
                              .keys = KEYS,
                              .n_strides = 4,
                              .uids = {0, Q, K, V, O, STATS, SCALE}};
}

static cudnnBackendDescriptor_t tensor(const struct Attention *a, int64_t uid, cudnnDataType_t type,
                                       const int64_t *dims, const int64_t *strides, bool on_host) {
    cudnnBackendDescriptor_t d = create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t alignment = 16;
    set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, a->n_strides, strides);
    set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &on_host);
    CUDNN_OK(cudnnBackendFinalize(d));
    return d;
}

static cudnnBackendDescriptor_t rows(const struct Attention *a, enum Uid uid, int64_t n_tokens) {
    const int64_t row = HEADS * a->width + a->row_gap;
    const int64_t dims[] = {1, HEADS, n_tokens, a->width},
                  strides[] = {n_tokens * row, a->width, row, 1};
    return tensor(a, a->uids[uid], a->type, dims, strides, false);
}

/* The operation, not finalized. */
static cudnnBackendDescriptor_t described(const struct Attention *a) {
    const int64_t stats_dims[] = {1, HEADS, QUERIES, 1}, stats_strides[] = {16, QUERIES, 1, 1};
    const int64_t ones[] = {1, 1, 1, 1};
    cudnnBackendDescriptor_t op = create(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    const struct {
        cudnnBackendAttributeName_t name;
        cudnnBackendDescriptor_t tensor;
    } links[] = {
        {CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, rows(a, Q, QUERIES)},
        {CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, rows(a, K, a->keys)},
        {CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, rows(a, V, KEYS)},
        {CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, rows(a, O, QUERIES)},
        {CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC,
         tensor(a, a->uids[STATS], CUDNN_DATA_FLOAT, stats_dims, stats_strides, false)},
        {CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC,
         tensor(a, a->uids[SCALE], CUDNN_DATA_FLOAT, ones, ones, !a->scale_on_device)},
    };
    for (int i = 0; i < N_TENSORS; i++)
        if (links[i].name != a->forgotten)
            set_link(op, links[i].name, links[i].tensor);
        else
            CUDNN_OK(cudnnBackendDestroyDescriptor(links[i].tensor));
    return op;
}

static cudnnStatus_t status_of(struct Attention a) {
    cudnnBackendDescriptor_t op = described(&a);
    cudnnStatus_t status = cudnnBackendFinalize(op);
    CUDNN_OK(cudnnBackendDestroyDescriptor(op));
    return status;
}

/* ---- told by a status */

static void test_unsupported(void **state) {
    (void)state;
    struct Attention a = good();
    CUDNN_OK(status_of(a));
    a.type = CUDNN_DATA_FLOAT;
    assert_int_equal(status_of(a), CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE);
    a = good();
    a.width = 60;
    a.row_gap = 8;                                                     /* rows of 128 */
    assert_int_equal(status_of(a), CUDNN_STATUS_NOT_SUPPORTED_LAYOUT); /* heads at odd places */
    a = good();
    a.row_gap = 4;
    assert_int_equal(status_of(a), CUDNN_STATUS_NOT_SUPPORTED_LAYOUT);
    a = good();
    a.width = 512;
    assert_int_equal(status_of(a), CUDNN_STATUS_NOT_SUPPORTED_SHAPE);
    a = good();
    a.scale_on_device = true;
    assert_int_equal(status_of(a), CUDNN_STATUS_NOT_SUPPORTED);
    a = good();
    a.keys = KEYS + 1;
    assert_int_equal(status_of(a), CUDNN_STATUS_BAD_PARAM);
}

static void test_stride_of_zero(void **state) {
    (void)state;
    const int64_t uid = 1, dims[] = {2, 3}, strides[] = {0, 1}, alignment = 16;
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t d = create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 2, dims);
    set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    assert_int_equal(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM);
    CUDNN_OK(cudnnBackendDestroyDescriptor(d));
}

/* ---- mistakes in descriptors */

static bool accepted(struct Attention a) {
    return status_of(a) == CUDNN_STATUS_SUCCESS;
}
static bool without_keys(void) {
    struct Attention a = good();
    a.forgotten = CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC;
    return accepted(a);
}
static bool three_strides(void) {
    struct Attention a = good();
    a.n_strides = 3;
    return accepted(a);
}
static bool wrong_type(void) {
    cudnnBackendDescriptor_t d = create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t type = CUDNN_DATA_FLOAT;
    return cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_INT64, 1, &type) ==
           CUDNN_STATUS_SUCCESS;
}
static bool two_uids(void) {
    cudnnBackendDescriptor_t d = create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t uids[2] = {1, 2};
    return cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 2, uids) ==
           CUDNN_STATUS_SUCCESS;
}
static bool attribute_of_another(void) {
    cudnnBackendDescriptor_t d = create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    return cudnnBackendSetAttribute(d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1,
                                    &mode) == CUDNN_STATUS_SUCCESS;
}
static bool link_not_finalized(void) {
    cudnnBackendDescriptor_t d = create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    cudnnBackendDescriptor_t op = create(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    return cudnnBackendSetAttribute(op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d) == CUDNN_STATUS_SUCCESS;
}
static bool set_after_the_end(void) {
    struct Attention a = good();
    cudnnBackendDescriptor_t d = rows(&a, Q, QUERIES);
    int64_t uid = 7;
    return cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid) ==
           CUDNN_STATUS_SUCCESS;
}
static bool ended_twice(void) {
    struct Attention a = good();
    return cudnnBackendFinalize(rows(&a, Q, QUERIES)) == CUDNN_STATUS_SUCCESS;
}
static bool left_behind(void) {
    cudnnHandle_t handle;
    CUDNN_OK(cudnnCreate(&handle));
    create(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    return cudnnDestroy(handle) == CUDNN_STATUS_SUCCESS;
}

static void test_descriptors(void **state) {
    (void)state;
    expect_rejected(without_keys, "lacks attribute 2801");
    expect_rejected(three_strides, "4 dimensions with 3 strides");
    expect_rejected(wrong_type, "has type 1, not 3");
    expect_rejected(two_uids, "2 elements for attribute 906");
    expect_rejected(attribute_of_another, "a tensor has no attribute 200");
    expect_rejected(link_not_finalized, "was not finalized");
    expect_rejected(set_after_the_end, "the tensor is finalized");
    expect_rejected(ended_twice, "the tensor is finalized");
    expect_rejected(left_behind, "1 descriptors were never destroyed");
}

/* ---- a whole run, and mistakes in its last step */

struct Run {
    cudnnHandle_t handle;
    cudaStream_t stream;
    cudnnBackendDescriptor_t graph, plan;
    char *memory; /* ROOM bytes for each device tensor and the workspace */
    float scale;
    int64_t uids[N_TENSORS];
    void *pointers[N_TENSORS], *workspace;
    int n_tensors;
};

static void run_open(struct Run *r, struct Attention a) {
    CUDA_OK(cudaStreamCreate(&r->stream));
    CUDNN_OK(cudnnCreate(&r->handle));
    CUDNN_OK(cudnnSetStream(r->handle, r->stream));
    cudnnBackendDescriptor_t op = described(&a);
    CUDNN_OK(cudnnBackendFinalize(op));
    r->graph = create(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(r->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &r->handle);
    set_link(r->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, op);
    CUDNN_OK(cudnnBackendFinalize(r->graph));

    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    int64_t n = 0;
    cudnnBackendDescriptor_t heuristic = create(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    cudnnBackendDescriptor_t config = create(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    set(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
        &r->graph);
    set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    CUDNN_OK(cudnnBackendFinalize(heuristic));
    CUDNN_OK(cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &config));
    assert_true(n >= 1);
    CUDNN_OK(cudnnBackendDestroyDescriptor(heuristic));
    r->plan = create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(r->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &r->handle);
    set_link(r->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    CUDNN_OK(cudnnBackendFinalize(r->plan));

    void *memory;
    CUDA_OK(cudaMalloc(&memory, N_TENSORS * ROOM));
    CUDA_OK(cudaMemsetAsync(memory, 0, N_TENSORS * ROOM, r->stream));
    r->memory = memory;
    r->scale = 1.0f;
    r->n_tensors = N_TENSORS;
    r->workspace = r->memory + (N_TENSORS - 1) * ROOM;
    for (int i = 0; i < N_TENSORS; i++) {
        r->uids[i] = a.uids[i + 1];
        r->pointers[i] = i + 1 == SCALE ? (void *)&r->scale : r->memory + i * ROOM;
    }
}

static void run_execute(struct Run *r) {
    cudnnBackendDescriptor_t pack = create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, r->n_tensors, r->uids);
    set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, r->n_tensors,
        r->pointers);
    set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &r->workspace);
    CUDNN_OK(cudnnBackendFinalize(pack));
    CUDNN_OK(cudnnBackendExecute(r->handle, r->plan, pack));
    CUDNN_OK(cudnnBackendDestroyDescriptor(pack));
}

static void run_close(struct Run *r) {
    CUDNN_OK(cudnnBackendDestroyDescriptor(r->plan));
    CUDNN_OK(cudnnBackendDestroyDescriptor(r->graph));
    CUDNN_OK(cudnnDestroy(r->handle));
    CUDA_OK(cudaFree(r->memory));
    CUDA_OK(cudaStreamDestroy(r->stream));
}

/* Scores that are all 0: the statistic is the logarithm of the number of keys. */
static void test_run(void **state) {
    (void)state;
    struct Run r;
    float statistic;
    run_open(&r, good());
    run_execute(&r);
    r.scale = -1.0f; /* was read when the run was enqueued */
    CUDA_OK(cudaMemcpyAsync(&statistic, r.pointers[STATS - 1], sizeof statistic,
                            cudaMemcpyDeviceToHost, r.stream));
    CUDA_OK(cudaStreamSynchronize(r.stream));
    assert_float_equal(statistic, 2.7725887f, 1e-6f);
    run_close(&r);
}

static bool after(void (*spoil)(struct Run *r)) {
    struct Run r;
    run_open(&r, good());
    spoil(&r);
    run_execute(&r);
    CUDA_OK(cudaStreamSynchronize(r.stream));
    return true;
}
static void drop_scale(struct Run *r) {
    r->n_tensors--;
}
static void rename_output(struct Run *r) {
    r->uids[O - 1] = 77;
}
static void name_twice(struct Run *r) {
    r->uids[O - 1] = Q;
}
static void misalign(struct Run *r) {
    r->pointers[K - 1] = (char *)r->pointers[K - 1] + 2;
}
static void overrun(struct Run *r) {
    r->pointers[K - 1] = r->memory + N_TENSORS * ROOM - 64;
}
static void host_output(struct Run *r) {
    static _Alignas(16) char on_host[ROOM];
    r->pointers[O - 1] = on_host;
}
static void no_workspace(struct Run *r) {
    r->workspace = NULL;
}
static void plan_for_pack(struct Run *r) {
    (void)cudnnBackendExecute(r->handle, r->plan, r->plan);
}
static bool without_scale(void) {
    return after(drop_scale);
}
static bool unknown_tensor(void) {
    return after(rename_output);
}
static bool twice_the_same(void) {
    return after(name_twice);
}
static bool misaligned(void) {
    return after(misalign);
}
static bool beyond_the_end(void) {
    return after(overrun);
}
static bool on_the_host(void) {
    return after(host_output);
}
static bool without_workspace(void) {
    return after(no_workspace);
}
static bool no_pack(void) {
    return after(plan_for_pack);
}
static bool uid_of_another(void) {
    struct Attention a = good();
    struct Run r;
    a.uids[V] = a.uids[K];
    run_open(&r, a);
    return true;
}

static void test_runs(void **state) {
    (void)state;
    expect_rejected(without_scale, "the variant pack lacks the tensor 6");
    expect_rejected(unknown_tensor, "the graph has no tensor 77");
    expect_rejected(twice_the_same, "a uid stands twice");
    expect_rejected(misaligned, "16-byte aligned");
    expect_rejected(beyond_the_end, "cudnnBackendExecute");
    expect_rejected(on_the_host, "cudnnBackendExecute");
    expect_rejected(without_workspace, "workspace");
    expect_rejected(no_pack, "for the variant pack");
    expect_rejected(uid_of_another, "two tensors of a graph have the uid 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_stride_of_zero),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_runs),
    };
    return cmocka_run_group_tests_name("cudnn", tests, NULL, NULL);
}
