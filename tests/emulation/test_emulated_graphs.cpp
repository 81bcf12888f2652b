/* Graphs of the emulated device: capture, launches, and what must not happen meanwhile. */
#include "add_fixture.h"

#include <thread>

#include "emulation.h"

class Exec {
    cudaGraphExec_t handle;

  public:
    explicit Exec(cudaGraph_t graph) {
        must(cudaGraphInstantiate(&handle, graph, 0));
        must(cudaGraphDestroy(graph)); /* the other outlives it */
    }
    ~Exec() {
        must(cudaGraphExecDestroy(handle));
    }
    Exec(const Exec &) = delete;
    Exec &operator=(const Exec &) = delete;
    operator cudaGraphExec_t() const {
        return handle;
    }
};

static void begin(cudaStream_t stream) {
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

static cudaGraph_t end(cudaStream_t stream) {
    cudaGraph_t graph;
    must(cudaStreamEndCapture(stream, &graph));
    return graph;
}

static cudaStreamCaptureStatus status_of(cudaStream_t stream) {
    cudaStreamCaptureStatus status;
    must(cudaStreamIsCapturing(stream, &status));
    return status;
}

/* ---- what graphs do */

struct Doubling {
    float *x;
};
static int n_freed;
static void doubling_run(void *arg) {
    float *x = ((Doubling *)arg)->x;
    for (int i = 0; i < N; i++) x[i] *= 2;
}
static void doubling_free(void *arg) {
    n_freed++;
    delete (Doubling *)arg;
}

/* x = 2 (x + 1) + 3 by a kernel, a library, another kernel; y = x. */
static void enqueue_all(const Array<float> &x, const Array<float> &y, cudaStream_t stream) {
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 1);
    emu_enqueue(stream, "doubling", doubling_run, new Doubling{x}, doubling_free);
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 3);
    must(cudaMemsetAsync(y, 0, y.n_bytes(), stream));
    must(cudaMemcpyAsync(y, x, x.n_bytes(), cudaMemcpyDeviceToDevice, stream));
}

static void a_graph_does_the_same_each_time(void **) {
    Stream stream;
    Array<float> x(N), y(N);
    n_freed = 0;
    {
        x.write(counting(N), stream);
        begin(stream);
        enqueue_all(x, y, stream);
        Exec exec(end(stream));
        assert_true(holds(x.read(stream), 0)); /* capture does nothing */
        must(cudaGraphLaunch(exec, stream));
        must(cudaGraphLaunch(exec, stream));
        for (int i = 0; i < N; i++) assert_true(y.read(stream)[i] == 2 * (2 * i + 5 + 1) + 3);
        x.write(counting(N), stream); /* other contents, the same graph */
        must(cudaGraphLaunch(exec, stream));
        for (int i = 0; i < N; i++) assert_true(x.read(stream)[i] == 2 * (i + 1) + 3);
        assert_int_equal(n_freed, 0);
        must(cudaGraphLaunch(exec, stream));
    } /* what was launched outlives the graph */
    for (int i = 0; i < N; i++) assert_true(x.read(stream)[i] == 2 * (2 * i + 5 + 1) + 3);
    assert_int_equal(n_freed, 1);
}

/* A launch is ordered with the work around it, and events can be waited for. */
static void launches_keep_the_order_of_the_stream(void **) {
    Stream stream, other;
    Array<float> x(N), y(N);
    cudaEvent_t event;
    must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    x.write(counting(N), stream);
    begin(stream);
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 1);
    Exec exec(end(stream));
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 10);
    must(cudaGraphUpload(exec, stream));
    must(cudaGraphLaunch(exec, stream));
    must(cudaEventRecord(event, stream));
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 100);
    must(cudaStreamWaitEvent(other, event, 0));
    EMU_LAUNCH(other, add_kernel, 1, 64, 0, y, x, 0);
    assert_true(holds(y.read(other), 11));
    assert_true(holds(x.read(stream), 111));
    must(cudaEventDestroy(event));
}

static void pinned_memory_is_read_when_the_graph_runs(void **) {
    Stream stream;
    Array<float> x(N);
    float *pinned;
    must(cudaMallocHost(&pinned, x.n_bytes()));
    begin(stream);
    must(cudaMemcpyAsync(x, pinned, x.n_bytes(), cudaMemcpyHostToDevice, stream));
    Exec exec(end(stream));
    for (int more = 1; more < 3; more++) {
        for (int i = 0; i < N; i++) pinned[i] = (float)(i + more);
        must(cudaGraphLaunch(exec, stream));
        assert_true(holds(x.read(stream), (float)more));
    }
    must(cudaFreeHost(pinned));
}

static void graphs_take_memory(void **) {
    Stream stream;
    Array<float> x(N);
    size_t before, with, after, total;
    must(cudaMemGetInfo(&before, &total));
    {
        begin(stream);
        EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 1);
        Exec exec(end(stream));
        must(cudaMemGetInfo(&with, &total));
    }
    must(cudaMemGetInfo(&after, &total));
    assert_true(with < before && after == before);
}

/* ---- what spoils a capture */

/* Does `call`, which is refused as if it waited, between kernels that are captured. */
template <typename F> static void expect_spoilt(F call) {
    Stream stream;
    Array<float> x(N);
    cudaGraph_t graph;
    must(cudaDeviceSynchronize());
    begin(stream);
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 1);
    assert_int_equal(status_of(stream), cudaStreamCaptureStatusActive);
    assert_int_equal(call(stream), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(status_of(stream), cudaStreamCaptureStatusInvalidated);
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 1);
    assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    assert_null(graph);
    assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
    assert_int_equal(status_of(stream), cudaStreamCaptureStatusNone);
    must(cudaStreamSynchronize(stream)); /* the stream is as it was */
}

static void waiting_and_allocating_spoil_a_capture(void **) {
    expect_spoilt([](cudaStream_t stream) { return cudaStreamSynchronize(stream); });
    expect_spoilt([](cudaStream_t stream) { return cudaStreamQuery(stream); });
    expect_spoilt([](cudaStream_t) { return cudaDeviceSynchronize(); });
    expect_spoilt([](cudaStream_t) {
        void *memory;
        return cudaMalloc(&memory, 100);
    });
    expect_spoilt([](cudaStream_t) {
        void *memory;
        return cudaMallocHost(&memory, 100);
    });
    static float *device, *pinned;
    static cudaEvent_t event;
    must(cudaMalloc(&device, 100));
    must(cudaMallocHost(&pinned, 100));
    must(cudaEventCreate(&event));
    expect_spoilt([](cudaStream_t) { return cudaFree(device); });
    expect_spoilt([](cudaStream_t) { return cudaFreeHost(pinned); });
    expect_spoilt([](cudaStream_t) { return cudaEventQuery(event); });
    expect_spoilt([](cudaStream_t) { return cudaEventSynchronize(event); });
    must(cudaFree(device));
    must(cudaFreeHost(pinned));
    must(cudaEventDestroy(event));
}

/* Other threads may, unless the capture is for all; and other streams can be waited for. */
static void the_mode_says_whom_a_capture_concerns(void **) {
    const cudaStreamCaptureMode modes[] = {cudaStreamCaptureModeGlobal,
                                           cudaStreamCaptureModeThreadLocal,
                                           cudaStreamCaptureModeRelaxed};
    for (cudaStreamCaptureMode mode : modes) {
        Stream stream, other;
        cudaGraph_t graph = NULL;
        must(cudaStreamBeginCapture(stream, mode));
        must(cudaStreamSynchronize(other));
        std::thread([&] {
            float *memory;
            if (cudaMalloc(&memory, 100) == cudaSuccess) must(cudaFree(memory));
        }).join();
        cudaError_t ended = cudaStreamEndCapture(stream, &graph);
        cudaGetLastError();
        assert_int_equal(ended == cudaSuccess, mode != cudaStreamCaptureModeGlobal);
        must(cudaGraphDestroy(graph));
    }
    Stream stream;
    cudaGraph_t graph;
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    { Array<float> x(N); } /* relaxed: this thread, too */
    must(cudaStreamEndCapture(stream, &graph));
    must(cudaGraphDestroy(graph));
}

static void captures_begin_and_end_once(void **) {
    Stream stream;
    cudaGraph_t graph;
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorIllegalState);
    begin(stream);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                     cudaErrorIllegalState);
    cudaError_t elsewhere = cudaSuccess;
    std::thread([&] { elsewhere = cudaStreamEndCapture(stream, &graph); }).join();
    assert_int_equal(elsewhere, cudaErrorStreamCaptureWrongThread);
    must(cudaGraphDestroy(end(stream)));
    cudaGetLastError();
}

/* ---- what a device would punish later */

enum Mistake {
    HOST_MEMORY,
    FREED_MEMORY,
    EVENT,
    WAIT,
    LAUNCH_INSIDE,
    DEFAULT_STREAM,
    DESTROYED_STREAM,
    STREAM_DESTROYED
};
template <Mistake MISTAKE> static bool capture_wrongly(void) {
    Stream stream;
    Array<float> y(N);
    std::vector<float> host(N);
    float *x;
    cudaEvent_t event;
    cudaStream_t gone;
    must(cudaMalloc(&x, N * sizeof(float)));
    must(cudaEventCreate(&event));
    must(cudaEventRecord(event, stream));
    must(cudaStreamCreate(&gone));
    if (MISTAKE == DEFAULT_STREAM) begin(NULL);
    if (MISTAKE == STREAM_DESTROYED) begin(gone);
    must(cudaStreamDestroy(gone));
    if (MISTAKE == DESTROYED_STREAM) begin(gone);
    begin(stream);
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, y, x, 1);
    if (MISTAKE == HOST_MEMORY) y.write(host, stream);
    if (MISTAKE == EVENT) cudaEventRecord(event, stream);
    if (MISTAKE == WAIT) cudaStreamWaitEvent(stream, event, 0);
    Exec exec(end(stream));
    if (MISTAKE == LAUNCH_INSIDE) begin(stream);
    if (MISTAKE == FREED_MEMORY) must(cudaFree(x));
    must(cudaGraphLaunch(exec, stream));
    must(cudaStreamSynchronize(stream));
    return true;
}

static void wrong_captures_are_told(void **) {
    expect_rejected(capture_wrongly<HOST_MEMORY>, "pageable host memory while capturing");
    expect_rejected(capture_wrongly<FREED_MEMORY>, "of 1200 that were freed");
    expect_rejected(capture_wrongly<EVENT>, "cudaEventRecord while capturing");
    expect_rejected(capture_wrongly<WAIT>, "cudaStreamWaitEvent while capturing");
    expect_rejected(capture_wrongly<LAUNCH_INSIDE>, "cudaGraphLaunch while capturing");
    expect_rejected(capture_wrongly<DEFAULT_STREAM>, "default stream");
    expect_rejected(capture_wrongly<DESTROYED_STREAM>, "on a stream that does not exist");
    expect_rejected(capture_wrongly<STREAM_DESTROYED>, "a stream that is being captured");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_graph_does_the_same_each_time),
        cmocka_unit_test(launches_keep_the_order_of_the_stream),
        cmocka_unit_test(pinned_memory_is_read_when_the_graph_runs),
        cmocka_unit_test(graphs_take_memory),
        cmocka_unit_test(waiting_and_allocating_spoil_a_capture),
        cmocka_unit_test(the_mode_says_whom_a_capture_concerns),
        cmocka_unit_test(captures_begin_and_end_once),
        cmocka_unit_test(wrong_captures_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
