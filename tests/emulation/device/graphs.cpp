/* Graphs: what a stream is given while it is captured, kept to be done again and again.
 *
 * Emulated is what one stream makes, a chain; events, which join streams, end the program.  As on
 * a device, a capture does nothing, and whatever would have to wait for the captured work, or for
 * the device as a whole, fails and spoils the capture.  A copy from or to ordinary host memory ends
 * the program (transfers.cpp): the graph would remember the address, and not what stood there. */
#include <algorithm>
#include <thread>
#include <vector>

#include "streams.h"

enum { GRAPH_BYTES = 4096, NODE_BYTES = 512 }; /* of device memory, that there are some */

using Deeds = std::vector<SharedDeed>;

struct Capture {
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool spoilt = false;
    Deeds deeds;
};

struct CUgraph_st {
    Deeds deeds;
};

struct CUgraphExec_st {
    int device;
    size_t n_bytes;
    Deeds deeds;
};

/* Captures under way. */
static std::vector<std::shared_ptr<Capture>> &captures(void) {
    static std::vector<std::shared_ptr<Capture>> &all = *new std::vector<std::shared_ptr<Capture>>;
    return all;
}

/* ---- what must not happen meanwhile */

static bool may_spoil(const Capture &capture, EmuUnsafe call) {
    if (call == EMU_UNSAFE_FOR_DEVICE) return true;
    if (capture.mode == cudaStreamCaptureModeRelaxed) return false;
    return capture.mode == cudaStreamCaptureModeGlobal ||
           capture.thread == std::this_thread::get_id();
}

bool emu_stream_captures(cudaStream_t stream) {
    emu_require_stream(stream, "work");
    return stream->capture != NULL;
}

bool emu_capture_forbids(EmuUnsafe call) {
    bool forbidden = false;
    for (const std::shared_ptr<Capture> &capture : captures())
        if (may_spoil(*capture, call)) capture->spoilt = forbidden = true;
    if (forbidden) emu_result(cudaErrorStreamCaptureUnsupported);
    return forbidden;
}

bool emu_capture_forbids_waiting(cudaStream_t stream) {
    if (!stream->capture) return false;
    stream->capture->spoilt = true;
    emu_result(cudaErrorStreamCaptureUnsupported);
    return true;
}

void emu_capture_take(cudaStream_t stream, SharedDeed deed) {
    if (stream->capture->spoilt)
        emu_result(cudaErrorStreamCaptureInvalidated);
    else
        stream->capture->deeds.push_back(std::move(deed));
}

/* ---- capture */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    DeviceLock lock = emu_lock();
    emu_require_stream(stream, "cudaStreamBeginCapture");
    if (mode < cudaStreamCaptureModeGlobal || mode > cudaStreamCaptureModeRelaxed)
        return emu_result(cudaErrorInvalidValue);
    if (stream->capture) return emu_result(cudaErrorIllegalState);
    stream->capture = std::make_shared<Capture>();
    stream->capture->mode = mode;
    stream->capture->thread = std::this_thread::get_id();
    captures().push_back(stream->capture);
    return emu_result(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    DeviceLock lock = emu_lock();
    *graph = NULL;
    emu_require_stream(stream, "cudaStreamEndCapture");
    std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return emu_result(cudaErrorIllegalState);
    if (capture->mode != cudaStreamCaptureModeRelaxed &&
        capture->thread != std::this_thread::get_id())
        return emu_result(cudaErrorStreamCaptureWrongThread);
    stream->capture = NULL;
    captures().erase(std::find(captures().begin(), captures().end(), capture));
    if (capture->spoilt) return emu_result(cudaErrorStreamCaptureInvalidated);
    *graph = new CUgraph_st{std::move(capture->deeds)};
    return emu_result(cudaSuccess);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    DeviceLock lock = emu_lock();
    emu_require_stream(stream, "cudaStreamIsCapturing");
    *status = !stream->capture          ? cudaStreamCaptureStatusNone
              : stream->capture->spoilt ? cudaStreamCaptureStatusInvalidated
                                        : cudaStreamCaptureStatusActive;
    return emu_result(cudaSuccess);
}

/* ---- graphs */

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    DeviceLock lock = emu_lock();
    delete graph;
    return emu_result(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags) {
    DeviceLock lock = emu_lock();
    *exec = NULL;
    if (!graph || flags != 0) return emu_result(cudaErrorInvalidValue);
    size_t n_bytes = GRAPH_BYTES + graph->deeds.size() * NODE_BYTES;
    int device = emu_current_device();
    if (!emu_take_memory(device, n_bytes)) return emu_result(cudaErrorMemoryAllocation);
    *exec = new CUgraphExec_st{device, n_bytes, graph->deeds};
    return emu_result(cudaSuccess);
}

/* Ends the program unless the graph can go to the stream. */
static void require_launchable(cudaGraphExec_t exec, cudaStream_t stream, const char *what) {
    emu_require_stream(stream, what);
    if (!exec) emu_reject("%s of no graph", what);
    if (exec->device != stream->device)
        emu_reject("%s on device %d of a graph made on device %d", what, stream->device,
                   exec->device);
    if (stream->capture) emu_reject("%s while capturing is not emulated", what);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    require_launchable(exec, stream, "cudaGraphUpload");
    return emu_result(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    require_launchable(exec, stream, "cudaGraphLaunch");
    for (const SharedDeed &deed : exec->deeds) stream->pending.push_back(Work{deed, NULL, NULL});
    return emu_result(cudaSuccess);
}

/* What was launched runs nevertheless. */
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    DeviceLock lock = emu_lock();
    if (!exec) return emu_result(cudaErrorInvalidValue);
    emu_give_memory_back(exec->device, exec->n_bytes);
    delete exec;
    return emu_result(cudaSuccess);
}
