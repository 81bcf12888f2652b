/* The CUDA backend's table, memory and set-up. */
#include "kernels/cuda/backend_cuda.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/cuda_state.h"
#include "kernels/cuda/graph_capture.h"

enum {
    OLDEST_ARCHITECTURE = 80, /* sm_80: bfloat16 and asynchronous copies */
    /* attention's backward of 12 heads at 32,760 tokens; a tap of the discriminator in two orders */
    WORKSPACE_BYTES = 512 << 20
};

void cuda_upload(const struct Backend *be, void *device, const void *host, int64_t n_bytes) {
    /* pageable memory is staged before the call returns: the caller may reuse it */
    CUDA_CHECK(cudaMemcpyAsync(device, host, (size_t)n_bytes, cudaMemcpyHostToDevice,
                               cuda_state(be)->stream));
}

void cuda_download(const struct Backend *be, void *host, const void *device, int64_t n_bytes) {
    cudaStream_t stream = cuda_state(be)->stream;
    CUDA_CHECK(cudaMemcpyAsync(host, device, (size_t)n_bytes, cudaMemcpyDeviceToHost, stream));
    CUDA_CHECK(cudaStreamSynchronize(stream));
}

void cuda_copy(const struct Backend *be, void *to, const void *from, int64_t n_bytes) {
    CUDA_CHECK(cudaMemcpyAsync(to, from, (size_t)n_bytes, cudaMemcpyDeviceToDevice,
                               cuda_state(be)->stream));
}

void cuda_copy_rows(const struct Backend *be, void *to, int64_t to_stride, const void *from,
                    int64_t from_stride, int64_t n_rows, int64_t row_bytes) {
    CUDA_CHECK(cudaMemcpy2DAsync(to, (size_t)to_stride, from, (size_t)from_stride, (size_t)row_bytes,
                                 (size_t)n_rows, cudaMemcpyDeviceToDevice, cuda_state(be)->stream));
}

void cuda_zero(const struct Backend *be, void *device, int64_t n_bytes) {
    CUDA_CHECK(cudaMemsetAsync(device, 0, (size_t)n_bytes, cuda_state(be)->stream));
}

static void cuda_finish(const struct Backend *be) {
    CUDA_CHECK(cudaStreamSynchronize(cuda_state(be)->stream));
    cuda_uploads_finish(cuda_state(be)->uploads);
    cuda_downloads_finish(cuda_state(be)->downloads);
}

static void *cuda_memory_alloc(const struct Backend *be, int64_t n_bytes) {
    void *memory = NULL;
    size_t wanted = (size_t)(n_bytes > 0 ? n_bytes : 1);
    cudaError_t status = cudaMalloc(&memory, wanted);
    TMD_CHECK(status == cudaSuccess, "device %d: asked for %lld bytes: %s", cuda_device_at_work(),
              (long long)n_bytes, cudaGetErrorString(status));
    CUDA_CHECK(cudaMemsetAsync(memory, 0, wanted, cuda_state(be)->stream));
    return memory;
}

static void cuda_memory_free(const struct Backend *be, void *memory) {
    cuda_finish(be); /* work that still uses it may be under way */
    CUDA_CHECK(cudaFree(memory));
}

static int64_t cuda_memory_available(const struct Backend *be) {
    size_t n_free, n_total;
    (void)be;
    CUDA_CHECK(cudaMemGetInfo(&n_free, &n_total));
    return (int64_t)n_free;
}

/* "NVIDIA H100 80GB HBM3, sm_90, 85.0 GB; CUDA driver 13.0, runtime 13.0; cuBLASLt 130100, cuDNN
 * 91300": the libraries' versions as they give them. */
static void cuda_describe(const struct Backend *be, char *text, size_t n_bytes) {
    struct cudaDeviceProp device;
    int driver, runtime;
    CUDA_CHECK(cudaGetDeviceProperties(&device, cuda_state(be)->device));
    CUDA_CHECK(cudaDriverGetVersion(&driver));
    CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
    snprintf(text, n_bytes,
             "%s, sm_%d%d, %.1f GB; CUDA driver %d.%d, runtime %d.%d; cuBLASLt %zu, cuDNN %zu",
             device.name, device.major, device.minor, 1e-9 * (double)device.totalGlobalMem,
             driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
             cublasLtGetVersion(), cudnnGetVersion());
}

static void cuda_destroy(struct Backend *be) {
    struct CudaState *state = be->state;
    cuda_finish(be);
    cuda_graphs_destroy(state->graphs);
    cuda_uploads_destroy(state->uploads);
    cuda_downloads_destroy(state->downloads);
    cuda_gemm_destroy(state->gemm);
    cuda_cudnn_destroy(state->cudnn);
    CUDA_CHECK(cudaFree(state->workspace));
    CUDA_CHECK(cudaStreamDestroy(state->stream));
    free(state);
    free(be);
}

/* ---- set-up: what can be wrong with a machine is the user's to mend, not a crash */

static bool choose_device(int ordinal, struct CudaState *state, struct Error *err) {
    int n_devices = 0, driver = 0;
    cudaError_t status = cudaGetDeviceCount(&n_devices);
    if (status == cudaErrorInsufficientDriver) {
        cudaDriverGetVersion(&driver);
        if (driver == 0)
            return error_set(err, "this machine has no CUDA driver: expected one for CUDA %d.%d or later",
                             CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
        return error_set(err, "the CUDA driver of this machine is too old: expected one for CUDA "
                              "%d.%d or later, got %d.%d",
                         CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, driver / 1000,
                         driver % 1000 / 10);
    }
    if (status != cudaSuccess || n_devices == 0)
        return error_set(err, "no CUDA device on this machine: %s",
                         status == cudaSuccess ? "the driver shows none" : cudaGetErrorString(status));
    state->device = ordinal % n_devices;
    struct cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, state->device));
    int architecture = 10 * properties.major + properties.minor;
    if (architecture < OLDEST_ARCHITECTURE)
        return error_set(err, "device %d (%s) has architecture sm_%d; expected sm_%d or later",
                         state->device, properties.name, architecture, OLDEST_ARCHITECTURE);
    state->n_multiprocessors = properties.multiProcessorCount;
    status = cudaSetDevice(state->device);
    if (status != cudaSuccess)
        return error_set(err, "device %d (%s) cannot be used: %s", state->device, properties.name,
                         cudaGetErrorString(status));
    return true;
}

bool backend_cuda_create(struct BackendCuda options, struct Backend **out, struct Error *err) {
    struct CudaState *state = xcalloc(sizeof *state);
    if (!choose_device(options.device, state, err)) {
        free(state);
        return false;
    }
    cudaError_t status = cudaMalloc(&state->workspace, WORKSPACE_BYTES);
    if (status != cudaSuccess) {
        error_set(err, "device %d has no %d MiB left for the libraries' workspace: %s",
                  state->device, WORKSPACE_BYTES >> 20, cudaGetErrorString(status));
        free(state);
        return false;
    }
    state->workspace_bytes = WORKSPACE_BYTES;
    state->deterministic = options.deterministic;
    state->tune_gemm = options.tune_gemm;
    state->every_plan = options.every_plan;
    CUDA_CHECK(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking));
    state->uploads = cuda_uploads_create();
    state->downloads = cuda_downloads_create();
    state->gemm = cuda_gemm_create(state);
    state->cudnn = cuda_cudnn_create(state);

    struct Backend *be = xcalloc(sizeof *be);
    be->name = "cuda";
    be->act_dtype = options.act_dtype;
    be->state = state;
#define CUDA_ENTRY(op, params, names) be->op = cuda_##op;
    MEMORY_OPS(CUDA_ENTRY)
    COMPUTE_OPS(CUDA_ENTRY)
    be->memory_alloc = cuda_memory_alloc;
    be->memory_free = cuda_memory_free;
    be->upload_wait = cuda_upload_wait;
    be->download_wait = cuda_download_wait;
    be->pinned_alloc = cuda_pinned_alloc;
    be->pinned_free = cuda_pinned_free;
    be->memory_available = cuda_memory_available;
    be->describe = cuda_describe;
    be->finish = cuda_finish;
    be->run_often = backend_run_once;
    be->learned = backend_learned_none;
    be->destroy = cuda_destroy;
    if (options.graphs) cuda_graphs_attach(be);
    *out = be;
    return true;
}

void *backend_cuda_stream(const struct Backend *be) {
    return cuda_state(be)->stream;
}
