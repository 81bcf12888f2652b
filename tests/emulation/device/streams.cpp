/* Streams and events.  Work waits in the queue of its stream until the host waits for something;
 * then only what that needs is run: earlier work of the same stream, and through
 * cudaStreamWaitEvent that of others.  So a wait that was forgotten shows every time: what it
 * should have waited for has not happened.  The other order, TMD_EMULATED_ORDER=eager-others, runs
 * all that other streams hold first, and shows the opposite: what should not have happened yet. */
#include <algorithm>
#include <set>
#include <vector>

#include "streams.h"

struct CUevent_st {
    bool timed;
    std::shared_ptr<Record> record; /* the last; NULL before the first */
};

struct Queues {
    std::vector<cudaStream_t> streams; /* in the order of their making */
    std::set<cudaEvent_t> events;
    const char *at_hand = NULL;
    long long n_begun = 0; /* pieces of work, of all streams */
};

static Queues &queues(void) {
    static Queues &all = *new Queues;
    return all;
}

const char *emu_work_at_hand(void) {
    return queues().at_hand;
}

/* ---- doing the work */

static void run_until(const Record &record);

static void destroy_deed(const Deed *deed) {
    if (deed->free_arg) deed->free_arg(deed->arg);
    delete deed;
}

SharedDeed emu_deed(const char *what, void (*run)(void *arg), void *arg,
                    void (*free_arg)(void *arg)) {
    return SharedDeed(new Deed{what, run, arg, free_arg}, destroy_deed);
}

static void do_deed(const Deed &deed) {
    const char *before = queues().at_hand;
    queues().at_hand = deed.what;
    emu_open_memory();
    deed.run(deed.arg);
    emu_check_guards(deed.what);
    queues().at_hand = before;
}

static void run_next(cudaStream_t stream) {
    Work work = std::move(stream->pending.front());
    stream->pending.pop_front();
    if (work.waits_for) run_until(*work.waits_for);
    if (work.reached) {
        work.reached->done = true;
        work.reached->time = std::chrono::steady_clock::now();
    }
    if (!work.deed) return;
    if (++queues().n_begun == emu_machine().fault) emu_device_dies();
    if (!emu_device_died()) do_deed(*work.deed);
}

static void run_until(const Record &record) {
    while (!record.done) run_next(record.stream);
}

static void run_all(cudaStream_t stream) {
    while (!stream->pending.empty()) run_next(stream);
}

static void run_others(cudaStream_t stream) {
    for (cudaStream_t other : queues().streams)
        if (other != stream) run_all(other);
}

void emu_finish_stream(cudaStream_t stream) {
    if (emu_machine().others_first) run_others(stream);
    run_all(stream);
    emu_close_memory();
}

void emu_finish_all(void) {
    run_others(NULL);
    emu_close_memory();
}

/* ---- giving it */

bool emu_stream_exists(cudaStream_t stream) {
    const std::vector<cudaStream_t> &all = queues().streams;
    return std::find(all.begin(), all.end(), stream) != all.end();
}

void emu_require_stream(cudaStream_t stream, const char *what) {
    if (!stream)
        emu_reject("%s on the default stream, which is not emulated: it waits for others unseen",
                   what);
    if (!emu_stream_exists(stream)) emu_reject("%s on a stream that does not exist", what);
    if (stream->device != emu_current_device())
        emu_reject("%s on a stream of device %d, while device %d is current", what, stream->device,
                   emu_current_device());
}

void emu_enqueue(cudaStream_t stream, const char *what, void (*run)(void *arg), void *arg,
                 void (*free_arg)(void *arg)) {
    DeviceLock lock = emu_lock();
    emu_require_stream(stream, what);
    if (queues().at_hand) emu_reject("%s was enqueued by work of the device", what);
    SharedDeed deed = emu_deed(what, run, arg, free_arg);
    if (stream->capture)
        emu_capture_take(stream, std::move(deed));
    else
        stream->pending.push_back(Work{std::move(deed), NULL, NULL});
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
    DeviceLock lock = emu_lock();
    if (flags > cudaStreamNonBlocking) return emu_result(cudaErrorInvalidValue);
    int n_devices;
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || emu_device_died())
        return cudaPeekAtLastError();
    *stream = new CUstream_st{emu_current_device(), {}, NULL};
    queues().streams.push_back(*stream);
    return emu_result(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    if (!emu_stream_exists(stream)) return emu_result(cudaErrorInvalidResourceHandle);
    if (stream->capture) emu_reject("cudaStreamDestroy of a stream that is being captured");
    emu_finish_stream(stream);
    std::vector<cudaStream_t> &all = queues().streams;
    all.erase(std::find(all.begin(), all.end(), stream));
    delete stream;
    return emu_result(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    if (!emu_stream_exists(stream)) return emu_result(cudaErrorInvalidResourceHandle);
    if (emu_capture_forbids_waiting(stream)) return cudaPeekAtLastError();
    emu_finish_stream(stream);
    return emu_result(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void) {
    DeviceLock lock = emu_lock();
    if (emu_capture_forbids(EMU_UNSAFE_FOR_DEVICE)) return cudaPeekAtLastError();
    emu_finish_all();
    return emu_result(cudaSuccess);
}

/* Each question lets one piece of work happen, so that who asks again and again comes to an end. */
static void bring_forward(cudaStream_t stream) {
    if (!stream->pending.empty()) run_next(stream);
    emu_close_memory();
}

/* "Not ready" is an error like others: it stays for cudaGetLastError, and so for the next launch's
 * check. */
static cudaError_t answer(bool ready) {
    return emu_result(ready ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    if (!emu_stream_exists(stream)) return emu_result(cudaErrorInvalidResourceHandle);
    if (emu_capture_forbids_waiting(stream)) return cudaPeekAtLastError();
    bring_forward(stream);
    return answer(stream->pending.empty());
}

/* ---- events */

static bool event_exists(cudaEvent_t event) {
    return queues().events.count(event) != 0;
}

/* Events of a stream that is being captured would join others to the graph. */
static void require_uncaptured(cudaStream_t stream, const char *what) {
    emu_require_stream(stream, what);
    if (stream->capture) emu_reject("%s while capturing is not emulated", what);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
    DeviceLock lock = emu_lock();
    if (flags & ~(unsigned)(cudaEventBlockingSync | cudaEventDisableTiming))
        return emu_result(cudaErrorInvalidValue);
    *event = new CUevent_st{!(flags & cudaEventDisableTiming), NULL};
    queues().events.insert(*event);
    return emu_result(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    DeviceLock lock = emu_lock();
    if (!event_exists(event)) return emu_result(cudaErrorInvalidResourceHandle);
    queues().events.erase(event);
    delete event;
    return emu_result(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    require_uncaptured(stream, "cudaEventRecord");
    if (!event_exists(event)) return emu_result(cudaErrorInvalidResourceHandle);
    event->record = std::make_shared<Record>(Record{stream, false, {}});
    stream->pending.push_back(Work{NULL, event->record, NULL});
    return emu_result(cudaSuccess);
}

/* As on a device, an event that was never recorded is waited for by nobody. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
    DeviceLock lock = emu_lock();
    require_uncaptured(stream, "cudaStreamWaitEvent");
    if (!event_exists(event)) return emu_result(cudaErrorInvalidResourceHandle);
    if (flags != cudaEventWaitDefault) return emu_result(cudaErrorInvalidValue);
    if (event->record) stream->pending.push_back(Work{NULL, NULL, event->record});
    return emu_result(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    DeviceLock lock = emu_lock();
    if (!event_exists(event)) return emu_result(cudaErrorInvalidResourceHandle);
    if (emu_capture_forbids(EMU_UNSAFE_FOR_THREAD)) return cudaPeekAtLastError();
    if (!event->record || event->record->done) return emu_result(cudaSuccess);
    if (emu_machine().others_first) run_others(event->record->stream);
    run_until(*event->record);
    emu_close_memory();
    return emu_result(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    DeviceLock lock = emu_lock();
    if (!event_exists(event)) return emu_result(cudaErrorInvalidResourceHandle);
    if (emu_capture_forbids(EMU_UNSAFE_FOR_THREAD)) return cudaPeekAtLastError();
    if (!event->record || event->record->done) return emu_result(cudaSuccess);
    bring_forward(event->record->stream);
    return answer(event->record->done);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    DeviceLock lock = emu_lock();
    if (!event_exists(start) || !event_exists(end) || !start->timed || !end->timed ||
        !start->record || !end->record)
        return emu_result(cudaErrorInvalidResourceHandle);
    if (!start->record->done || !end->record->done) return answer(false);
    *milliseconds =
        std::chrono::duration<float, std::milli>(end->record->time - start->record->time).count();
    return emu_result(cudaSuccess);
}
