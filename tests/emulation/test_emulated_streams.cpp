/* Streams, events, copies and memory of the emulated device, right and wrong. */
#include "add_fixture.h"

#include <cmath>
#include <cstring>

#include "emulation.h"

class Event {
    cudaEvent_t handle;

  public:
    explicit Event(unsigned int flags = cudaEventDisableTiming) {
        must(cudaEventCreateWithFlags(&handle, flags));
    }
    ~Event() {
        must(cudaEventDestroy(handle));
    }
    Event(const Event &) = delete;
    Event &operator=(const Event &) = delete;
    operator cudaEvent_t() const {
        return handle;
    }
};

/* ---- order */

/* One stream makes x, another y from it, a third z from y: right only where each waits. */
static bool chain(bool second_waits, bool third_waits) {
    Stream first, second, third;
    Array<float> x(N), y(N), z(N);
    Event x_made, y_made;
    x.write(counting(N), first);
    EMU_LAUNCH(first, add_kernel, 1, 64, 0, x, x, 1);
    must(cudaEventRecord(x_made, first));
    EMU_LAUNCH(first, add_kernel, 1, 64, 0, x, x, 0); /* work after the event is not waited for */
    if (second_waits) must(cudaStreamWaitEvent(second, x_made, 0));
    EMU_LAUNCH(second, add_kernel, 1, 64, 0, y, x, 2);
    must(cudaEventRecord(y_made, second));
    if (third_waits) must(cudaStreamWaitEvent(third, y_made, 0));
    EMU_LAUNCH(third, add_kernel, 1, 64, 0, z, y, 3);
    return holds(z.read(third), 6);
}

static void a_missing_wait_shows(void **) {
    assert_true(chain(true, true));
    assert_false(chain(false, true));
    assert_false(chain(true, false));
}

/* A stream overwrites what another still reads, and waits for it or not. */
template <bool WAITS> static bool overwrite(void) {
    Stream reader, writer;
    Array<float> x(N), y(N);
    Event filled, read;
    x.write(counting(N), reader);
    must(cudaEventRecord(filled, reader));
    EMU_LAUNCH(reader, add_kernel, 1, 64, 0, y, x, 5);
    must(cudaEventRecord(read, reader));
    must(cudaStreamWaitEvent(writer, WAITS ? read : filled, 0));
    must(cudaMemsetAsync(x, 0, x.n_bytes(), writer));
    return holds(y.read(reader), 5);
}
template <bool WAITS> static bool overwrite_wrongly(void) {
    return !overwrite<WAITS>();
}

static void the_other_order_shows_the_other_hazard(void **) {
    const char *order = "TMD_EMULATED_ORDER";
    expect_true_with(order, "lazy", overwrite<true>);
    expect_true_with(order, "lazy", overwrite<false>);
    expect_true_with(order, "eager-others", overwrite<true>);
    expect_true_with(order, "eager-others", overwrite_wrongly<false>);
}

static void an_event_stands_for_its_last_record(void **) {
    Stream first, second;
    Array<float> x(N), y(N);
    Event event;
    must(cudaStreamWaitEvent(second, event, 0)); /* of no record: nothing to wait for */
    must(cudaEventRecord(event, first));
    x.write(counting(N), first);
    must(cudaEventRecord(event, first));
    must(cudaStreamWaitEvent(second, event, 0));
    must(cudaEventRecord(event, first)); /* a later record changes nothing for who waits already */
    EMU_LAUNCH(second, add_kernel, 1, 64, 0, y, x, 1);
    assert_true(holds(y.read(second), 1));
    must(cudaEventSynchronize(event));
}

static void questions_bring_work_forward(void **) {
    Stream stream;
    Array<float> x(N);
    Event event, never;
    assert_int_equal(cudaStreamQuery(stream), cudaSuccess);
    assert_int_equal(cudaEventQuery(never), cudaSuccess);
    x.write(counting(N), stream);
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 1);
    must(cudaEventRecord(event, stream));
    int n_times = 0;
    while (cudaEventQuery(event) == cudaErrorNotReady) {
        assert_int_equal(cudaGetLastError(), cudaErrorNotReady); /* and forgotten by that */
        n_times++;
    }
    assert_int_equal(n_times, 2);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaStreamQuery(stream), cudaSuccess);
    assert_true(holds(x.read(stream), 1));
}

static void events_measure_time(void **) {
    Stream stream;
    Event start(cudaEventDefault), end(cudaEventDefault), timeless;
    float ms = -1;
    assert_int_equal(cudaEventElapsedTime(&ms, start, end), cudaErrorInvalidResourceHandle);
    must(cudaEventRecord(start, stream));
    must(cudaEventRecord(end, stream));
    must(cudaEventRecord(timeless, stream));
    assert_int_equal(cudaEventElapsedTime(&ms, start, end), cudaErrorNotReady);
    must(cudaDeviceSynchronize());
    assert_int_equal(cudaEventElapsedTime(&ms, start, end), cudaSuccess);
    assert_true(ms >= 0 && ms < 1000);
    assert_int_equal(cudaEventElapsedTime(&ms, start, timeless), cudaErrorInvalidResourceHandle);
    cudaGetLastError();
}

/* ---- copies */

static void pageable_sources_are_staged_and_pinned_ones_are_not(void **) {
    Stream stream;
    Array<float> x(N);
    std::vector<float> pageable = counting(N);
    x.write(pageable, stream);
    std::fill(pageable.begin(), pageable.end(), -1.0f);
    assert_true(holds(x.read(stream), 0));

    float *pinned;
    must(cudaMallocHost(&pinned, N * sizeof(float)));
    assert_true(std::isnan(pinned[0]));
    memcpy(pinned, counting(N).data(), N * sizeof(float));
    must(cudaMemcpyAsync(x, pinned, x.n_bytes(), cudaMemcpyHostToDevice, stream));
    pinned[7] = -1; /* too early */
    std::vector<float> got = x.read(stream);
    assert_true(got[7] == -1 && got[8] == 8);
    must(cudaFreeHost(pinned));
}

static void destinations_are_written_at_once_unless_pinned(void **) {
    Stream stream;
    Array<float> x(N);
    std::vector<float> pageable(N);
    x.write(counting(N), stream);
    must(cudaMemcpyAsync(pageable.data(), x, x.n_bytes(), cudaMemcpyDeviceToHost, stream));
    assert_true(holds(pageable, 0));

    float *pinned;
    must(cudaMallocHost(&pinned, N * sizeof(float)));
    pinned[3] = -1;
    must(cudaMemcpyAsync(pinned, x, x.n_bytes(), cudaMemcpyDeviceToHost, stream));
    assert_true(pinned[3] == -1);
    must(cudaStreamSynchronize(stream));
    assert_true(pinned[3] == 3);
    must(cudaFreeHost(pinned));
}

enum CopyMistake {
    BYTES_OF_BYTES, /* a count of bytes where one of elements belongs: four times too much */
    PAST_THE_END,
    WRONG_KIND,
    HOST_AS_DEVICE,
    OVERLAP,
    OVERLAP_BELOW,
    LAST_ROW_TOO_LONG,
    PINNED_TOO_SHORT,
    FILL_TOO_LONG,
    DEFAULT_STREAM,
    DESTROYED_STREAM
};
template <CopyMistake MISTAKE> static bool copy_wrongly(void) {
    Stream stream;
    Array<float> x(N), y(N);
    std::vector<float> host(4 * N);
    float *pinned;
    cudaStream_t gone;
    must(cudaMallocHost(&pinned, 64));
    must(cudaStreamCreate(&gone));
    must(cudaStreamDestroy(gone));
    size_t n_bytes = x.n_bytes();
    switch (MISTAKE) {
    case BYTES_OF_BYTES:
        cudaMemcpyAsync(x, host.data(), n_bytes * sizeof(float), cudaMemcpyHostToDevice, stream);
        break;
    case PAST_THE_END:
        cudaMemcpyAsync(y, (float *)x + 1, n_bytes, cudaMemcpyDeviceToDevice, stream);
        break;
    case WRONG_KIND:
        cudaMemcpyAsync(x, y, n_bytes, cudaMemcpyHostToDevice, stream);
        break;
    case HOST_AS_DEVICE:
        cudaMemcpyAsync(x, host.data(), n_bytes, cudaMemcpyDeviceToDevice, stream);
        break;
    case OVERLAP:
        cudaMemcpyAsync(x, (float *)x + 10, n_bytes / 2, cudaMemcpyDeviceToDevice, stream);
        break;
    case OVERLAP_BELOW:
        cudaMemcpyAsync((float *)x + 10, x, n_bytes / 2, cudaMemcpyDeviceToDevice, stream);
        break;
    case LAST_ROW_TOO_LONG:
        cudaMemcpy2DAsync(x, n_bytes / 4, (float *)y + 1, n_bytes / 4, n_bytes / 4, 4,
                          cudaMemcpyDeviceToDevice, stream);
        break;
    case PINNED_TOO_SHORT:
        cudaMemcpyAsync(pinned, x, n_bytes, cudaMemcpyDeviceToHost, stream);
        break;
    case FILL_TOO_LONG:
        cudaMemsetAsync(x, 0, n_bytes + 1, stream);
        break;
    case DEFAULT_STREAM:
        cudaMemsetAsync(x, 0, n_bytes, NULL);
        break;
    case DESTROYED_STREAM:
        cudaMemsetAsync(x, 0, n_bytes, gone);
        break;
    }
    return true;
}

static void wrong_copies_are_told(void **) {
    expect_rejected(copy_wrongly<BYTES_OF_BYTES>,
                    "run past the end of an allocation of 1200 bytes");
    expect_rejected(copy_wrongly<PAST_THE_END>, "1200 bytes from byte 4 on run past the end");
    expect_rejected(copy_wrongly<WRONG_KIND>, "is device memory, where the kind of copy says host");
    expect_rejected(copy_wrongly<HOST_AS_DEVICE>, "is not device memory");
    expect_rejected(copy_wrongly<OVERLAP>, "overlap");
    expect_rejected(copy_wrongly<OVERLAP_BELOW>, "overlap");
    expect_rejected(copy_wrongly<LAST_ROW_TOO_LONG>, "1200 bytes from byte 4 on run past the end");
    expect_rejected(copy_wrongly<PINNED_TOO_SHORT>,
                    "run past the end of 64 bytes of pinned memory");
    expect_rejected(copy_wrongly<FILL_TOO_LONG>, "run past the end of an allocation of 1200 bytes");
    expect_rejected(copy_wrongly<DEFAULT_STREAM>, "default stream");
    expect_rejected(copy_wrongly<DESTROYED_STREAM>, "on a stream that does not exist");
}

/* ---- memory */

template <bool WRITES> static bool touch(void) {
    Stream stream;
    Array<float> x(N);
    x.write(counting(N), stream);
    must(cudaStreamSynchronize(stream));
    volatile float *from_host = x;
    if (WRITES)
        from_host[2] = 1;
    else
        return from_host[2] == 2;
    return true;
}
static bool touch_freed(void) {
    volatile float *x;
    must(cudaMalloc((float **)&x, 40));
    must(cudaFree((void *)x));
    x[1] = 1;
    return true;
}

static void device_memory_is_not_for_the_host(void **) {
    expect_rejected(touch<false>, "host code touched device memory");
    expect_rejected(touch<true>, "byte 8 of 1200");
    expect_rejected(touch_freed, "byte 4 of 40 that were freed");
}

static bool free_twice(void) {
    void *x;
    must(cudaMalloc(&x, 40));
    must(cudaFree(x));
    cudaFree(x);
    return true;
}
static bool free_inside(void) {
    char *x;
    must(cudaMalloc(&x, 40));
    cudaFree(x + 8);
    return true;
}

static void wrong_frees_are_told(void **) {
    expect_rejected(free_twice, "freed already");
    expect_rejected(free_inside, "which no cudaMalloc returned");
    assert_int_equal(cudaFree(NULL), cudaSuccess);
}

/* What a library's stand-in does: work of its own between that of others. */
struct Doubling {
    float *x;
    int n_elems;
};
static void doubling_run(void *arg) {
    Doubling *doubling = (Doubling *)arg;
    emu_require_device(doubling->x, doubling->n_elems * sizeof(float), "doubling");
    for (int i = 0; i < doubling->n_elems; i++) doubling->x[i] *= 2;
}

static void library_work_runs_in_order(void **) {
    Stream stream;
    Array<float> x(N);
    Doubling doubling = {x, N};
    x.write(counting(N), stream);
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 1);
    emu_enqueue(stream, "doubling", doubling_run, &doubling, NULL);
    EMU_LAUNCH(stream, add_kernel, 1, 64, 0, x, x, 1);
    std::vector<float> got = x.read(stream);
    for (int i = 0; i < N; i++) assert_true(got[i] == 2 * ((float)i + 1) + 1);
}
static bool library_overruns(void) {
    Stream stream;
    Array<float> x(N);
    Doubling doubling = {x, N + 1};
    emu_enqueue(stream, "doubling", doubling_run, &doubling, NULL);
    must(cudaStreamSynchronize(stream));
    return true;
}

static void library_mistakes_name_the_work(void **) {
    expect_rejected(library_overruns, "while doing doubling");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_other_order_shows_the_other_hazard), /* reads its environment first */
        cmocka_unit_test(a_missing_wait_shows),
        cmocka_unit_test(an_event_stands_for_its_last_record),
        cmocka_unit_test(questions_bring_work_forward),
        cmocka_unit_test(events_measure_time),
        cmocka_unit_test(pageable_sources_are_staged_and_pinned_ones_are_not),
        cmocka_unit_test(destinations_are_written_at_once_unless_pinned),
        cmocka_unit_test(wrong_copies_are_told),
        cmocka_unit_test(device_memory_is_not_for_the_host),
        cmocka_unit_test(wrong_frees_are_told),
        cmocka_unit_test(library_work_runs_in_order),
        cmocka_unit_test(library_mistakes_name_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
