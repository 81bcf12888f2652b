/* The machines that the environment can describe.  Each is a process of its own: what the parent
 * looks at first would be settled for all. */
#include "device_fixture.h"

#include <cstring>

static bool says_no_device(void) {
    int count = -1;
    cudaStream_t stream;
    void *memory;
    return cudaGetDeviceCount(&count) == cudaErrorNoDevice && count == 0 &&
           cudaMalloc(&memory, 1) == cudaErrorNoDevice && cudaSetDevice(0) == cudaErrorNoDevice &&
           cudaStreamCreate(&stream) == cudaErrorNoDevice &&
           cudaGetLastError() == cudaErrorNoDevice && cudaGetLastError() == cudaSuccess;
}

static bool says_old_driver(void) {
    int count, version;
    return cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver &&
           cudaDriverGetVersion(&version) == cudaSuccess && version == 12040;
}

static bool has_three_devices(void) {
    int count, device;
    return cudaGetDeviceCount(&count) == cudaSuccess && count == 3 &&
           cudaSetDevice(2) == cudaSuccess && cudaGetDevice(&device) == cudaSuccess &&
           device == 2 && cudaSetDevice(3) == cudaErrorInvalidDevice &&
           cudaGetDevice(&device) == cudaSuccess && device == 2;
}

static bool uses_a_stream_of_another_device(void) {
    cudaStream_t stream;
    setenv("TMD_EMULATED_DEVICES", "2", 1);
    must(cudaStreamCreate(&stream));
    must(cudaSetDevice(1));
    float *x;
    must(cudaMalloc(&x, 16));
    cudaMemsetAsync(x, 0, 16, stream);
    return true;
}

static bool is_sm_75(void) {
    struct cudaDeviceProp properties;
    return cudaGetDeviceProperties(&properties, 0) == cudaSuccess && properties.major == 7 &&
           properties.minor == 5 && strlen(properties.name) > 0;
}

static bool has_a_mebibyte(void) {
    void *half, *rest, *more;
    size_t n_free, n_total;
    must(cudaMalloc(&half, 512 << 10));
    bool good = cudaMalloc(&more, (512 << 10) + 1) == cudaErrorMemoryAllocation && !more;
    must(cudaMalloc(&rest, 512 << 10));
    must(cudaMemGetInfo(&n_free, &n_total));
    good &= n_free == 0 && n_total == 1 << 20;
    must(cudaFree(half));
    must(cudaMemGetInfo(&n_free, &n_total));
    good &= n_free == 512 << 10;
    must(cudaFree(rest));
    return good;
}

static bool pins_a_kibibyte(void) {
    void *half, *rest, *more;
    must(cudaMallocHost(&half, 512));
    bool good = cudaMallocHost(&more, 513) == cudaErrorMemoryAllocation;
    must(cudaMallocHost(&rest, 512));
    must(cudaFreeHost(half));
    must(cudaMallocHost(&half, 512));
    must(cudaFreeHost(half));
    must(cudaFreeHost(rest));
    return good && cudaGetLastError() == cudaErrorMemoryAllocation;
}

static bool dies_at_the_second_fill(void) {
    cudaStream_t stream;
    void *x, *y;
    must(cudaStreamCreate(&stream));
    must(cudaMalloc(&x, 100));
    must(cudaMemsetAsync(x, 0, 100, stream));
    must(cudaStreamSynchronize(stream));
    must(cudaMemsetAsync(x, 0, 100, stream));
    return cudaStreamSynchronize(stream) == cudaErrorLaunchFailure &&
           cudaGetLastError() == cudaErrorLaunchFailure &&
           cudaGetLastError() == cudaErrorLaunchFailure &&
           cudaMalloc(&y, 1) == cudaErrorLaunchFailure &&
           cudaMemsetAsync(x, 0, 100, stream) == cudaErrorLaunchFailure;
}

static bool leaks(void) {
    void *memory;
    must(cudaMalloc(&memory, 100));
    exit(0);
}
static bool leaks_nothing(void) {
    void *memory;
    must(cudaMalloc(&memory, 100));
    must(cudaFree(memory));
    exit(0);
}
static bool asks_nothing(void) {
    int count;
    cudaGetDeviceCount(&count);
    return true;
}

static void machines_are_as_described(void **) {
    expect_true_with("TMD_EMULATED_DEVICES", "0", says_no_device);
    expect_true_with("TMD_EMULATED_DEVICES", "3", has_three_devices);
    expect_true_with("TMD_EMULATED_DRIVER", "12040", says_old_driver);
    expect_true_with("TMD_EMULATED_ARCHITECTURE", "75", is_sm_75);
    expect_true_with("TMD_EMULATED_BYTES", "1048576", has_a_mebibyte);
    expect_true_with("TMD_EMULATED_PINNED_BYTES", "1024", pins_a_kibibyte);
    expect_true_with("TMD_EMULATED_FAULT", "2", dies_at_the_second_fill);
}

static void a_stream_belongs_to_its_device(void **) {
    expect_rejected(uses_a_stream_of_another_device, "on a stream of device 0, while device 1");
}

static void leaks_are_told_where_asked_for(void **) {
    expect_exit_with("TMD_EMULATED_STRICT", "1", leaks, 1,
                     "1 allocations (100 bytes) were never freed");
    expect_exit_with("TMD_EMULATED_STRICT", "0", leaks, 0, "");
    expect_exit_with("TMD_EMULATED_STRICT", "1", leaks_nothing, 0, "");
}

static bool asks_with_bad_count(void) {
    setenv("TMD_EMULATED_DEVICES", "two", 1);
    return asks_nothing();
}
static bool asks_with_bad_order(void) {
    setenv("TMD_EMULATED_ORDER", "random", 1);
    return asks_nothing();
}

static void bad_settings_are_told(void **) {
    expect_rejected(asks_with_bad_count, "TMD_EMULATED_DEVICES=two is no count");
    expect_rejected(asks_with_bad_order, "TMD_EMULATED_ORDER=random is neither");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machines_are_as_described),
        cmocka_unit_test(a_stream_belongs_to_its_device),
        cmocka_unit_test(leaks_are_told_where_asked_for),
        cmocka_unit_test(bad_settings_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
