/* The machine that the environment describes, the device of each host thread, and errors. */
#include "device.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

static long long setting(const char *name, long long fallback) {
    const char *text = getenv(name);
    if (!text) return fallback;
    char *end;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || value < 0) emu_reject("%s=%s is no count", name, text);
    return value;
}

static bool order_is_eager(void) {
    const char *order = getenv("TMD_EMULATED_ORDER");
    if (!order || strcmp(order, "lazy") == 0) return false;
    if (strcmp(order, "eager-others") != 0)
        emu_reject("TMD_EMULATED_ORDER=%s is neither lazy nor eager-others", order);
    return true;
}

const Machine &emu_machine(void) {
    static const Machine machine = {
        (int)setting("TMD_EMULATED_DEVICES", 1),
        (int)setting("TMD_EMULATED_ARCHITECTURE", 90),
        (int)setting("TMD_EMULATED_DRIVER", CUDART_VERSION),
        (size_t)setting("TMD_EMULATED_BYTES", 8LL << 30),
        (size_t)setting("TMD_EMULATED_PINNED_BYTES", 8LL << 30),
        order_is_eager(),
        setting("TMD_EMULATED_STRICT", 0) != 0,
        setting("TMD_EMULATED_FAULT", 0),
    };
    return machine;
}

int emu_shared_optin_bytes(void) {
    int architecture = emu_machine().architecture;
    return (architecture >= 90 ? 227 : architecture == 80 ? 163 : 99) * 1024;
}

DeviceLock emu_lock(void) {
    static std::recursive_mutex &mutex = *new std::recursive_mutex;
    return DeviceLock(mutex);
}

/* ---- errors */

static thread_local cudaError_t last_error = cudaSuccess;
static bool died = false;

void emu_device_dies(void) {
    died = true;
}

bool emu_device_died(void) {
    return died;
}

cudaError_t emu_result(cudaError_t error) {
    if (died) error = cudaErrorLaunchFailure;
    if (error != cudaSuccess) last_error = error;
    return error;
}

cudaError_t cudaPeekAtLastError(void) {
    return emu_result(last_error);
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return error;
}

#define ERRORS(ERROR)                                                                              \
    ERROR(cudaSuccess, "no error")                                                                 \
    ERROR(cudaErrorInvalidValue, "invalid argument")                                               \
    ERROR(cudaErrorMemoryAllocation, "out of memory")                                              \
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument")                         \
    ERROR(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime")     \
    ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected")                                 \
    ERROR(cudaErrorInvalidDevice, "invalid device ordinal")                                        \
    ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle")                               \
    ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state")         \
    ERROR(cudaErrorNotReady, "device not ready")                                                   \
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure")                                    \
    ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")   \
    ERROR(cudaErrorStreamCaptureInvalidated,                                                       \
          "operation failed due to a previous error during capture")                               \
    ERROR(cudaErrorStreamCaptureWrongThread,                                                       \
          "attempt to terminate a thread-local capture sequence from another thread")

const char *cudaGetErrorString(cudaError_t error) {
#define ERROR_STRING(name, text)                                                                   \
    if (error == name) return text;
    ERRORS(ERROR_STRING)
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t error) {
#define ERROR_NAME(name, text)                                                                     \
    if (error == name) return #name;
    ERRORS(ERROR_NAME)
    return "unrecognized error code";
}

void emu_reject(const char *format, ...) {
    char message[1024], thread[128] = "";
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    const char *work = emu_work_at_hand();
    emu_describe_thread(thread, sizeof thread);
    fflush(stdout);
    fprintf(stderr, "emulated device: %s%s%s%s\n", message, work ? "; while doing " : "",
            work ? work : "", thread);
    abort();
}

/* ---- devices */

static thread_local int current_device = 0;

int emu_current_device(void) {
    return current_device;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = emu_machine().driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

/* Minor-version compatibility: a driver of the same major version will do. */
cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    if (emu_machine().driver / 1000 < CUDART_VERSION / 1000)
        return emu_result(cudaErrorInsufficientDriver);
    if (emu_machine().n_devices == 0) return emu_result(cudaErrorNoDevice);
    *count = emu_machine().n_devices;
    return cudaSuccess;
}

/* Whether `device` can be used; otherwise the error. */
static cudaError_t device_status(int device) {
    int n_devices;
    cudaError_t status = cudaGetDeviceCount(&n_devices);
    if (status == cudaSuccess && (device < 0 || device >= n_devices))
        status = emu_result(cudaErrorInvalidDevice);
    return status;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    cudaError_t status = device_status(device);
    if (status != cudaSuccess) return status;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "emulated device");
    properties->totalGlobalMem = emu_machine().memory_bytes;
    properties->sharedMemPerBlock = SHARED_BYTES;
    properties->sharedMemPerBlockOptin = (size_t)emu_shared_optin_bytes();
    properties->major = emu_machine().architecture / 10;
    properties->minor = emu_machine().architecture % 10;
    properties->multiProcessorCount = 4; /* few, so that loops over the grid really loop */
    properties->maxThreadsPerBlock = 1024;
    properties->warpSize = 32;
    properties->l2CacheSize = 1 << 20;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    cudaError_t status = device_status(device);
    if (status == cudaSuccess) current_device = device;
    return status;
}

cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    return device_status(current_device);
}
