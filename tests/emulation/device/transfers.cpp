/* Traffic between host and device: pinned memory, copies, fills. */
#include <cstdlib>
#include <cstring>
#include <map>

#include "device.h"
#include "emulated/kernel_launch.h"

/* ---- pinned host memory */

enum : size_t { PAGE_BYTES = 4096 };

/* By address, n_bytes of host memory that the device reads when it comes to it. */
static std::map<uintptr_t, size_t> &pinned(void) {
    static std::map<uintptr_t, size_t> &all = *new std::map<uintptr_t, size_t>;
    return all;
}

/* The pinned range that holds `address`, as [begin, end); false where there is none. */
static bool pinned_range(uintptr_t address, uintptr_t *begin, uintptr_t *end) {
    auto next = pinned().upper_bound(address);
    if (next == pinned().begin()) return false;
    *begin = std::prev(next)->first;
    *end = *begin + std::prev(next)->second;
    return address < *end;
}

static size_t pinned_bytes_left(void) {
    size_t used = 0;
    for (const auto &[begin, n_bytes] : pinned()) used += n_bytes;
    return emu_machine().pinned_bytes - used;
}

extern "C" void emu_require_kernel_pointer(const EmuLaunch *launch, const void *pointer) {
    DeviceLock lock = emu_lock();
    uintptr_t begin, end;
    if (!pointer || pinned_range((uintptr_t)pointer, &begin, &end)) return;
    emu_require_device(pointer, 0, launch->kernel);
}

cudaError_t cudaMallocHost(void **address, size_t n_bytes) {
    DeviceLock lock = emu_lock();
    if (emu_capture_forbids(EMU_UNSAFE_FOR_THREAD)) return cudaPeekAtLastError();
    if (n_bytes > pinned_bytes_left()) return emu_result(cudaErrorMemoryAllocation);
    *address = aligned_alloc(PAGE_BYTES, (n_bytes / PAGE_BYTES + 1) * PAGE_BYTES);
    if (!*address) return emu_result(cudaErrorMemoryAllocation);
    memset(*address, POISON, n_bytes);
    pinned()[(uintptr_t)*address] = n_bytes;
    return emu_result(cudaSuccess);
}

cudaError_t cudaFreeHost(void *address) {
    if (!address) return emu_result(cudaSuccess);
    DeviceLock lock = emu_lock();
    if (!pinned().count((uintptr_t)address))
        emu_reject("cudaFreeHost(%p), which no cudaMallocHost returned", address);
    if (emu_capture_forbids(EMU_UNSAFE_FOR_THREAD)) return cudaPeekAtLastError();
    emu_finish_all();
    pinned().erase((uintptr_t)address);
    free(address);
    return emu_result(cudaSuccess);
}

/* ---- copies */

struct Copy {
    void *to;
    const void *from;
    size_t n_bytes;
    void *staged; /* what a pageable source held at the call; NULL otherwise */
};

static void copy_run(void *arg) {
    Copy *copy = (Copy *)arg;
    memcpy(copy->to, copy->staged ? copy->staged : copy->from, copy->n_bytes);
}

static void copy_free(void *arg) {
    Copy *copy = (Copy *)arg;
    free(copy->staged);
    delete copy;
}

/* One side of a copy: whether it is device memory as `device` says, and whole. */
static void check_side(const void *address, size_t n_bytes, bool device, const char *what) {
    uintptr_t begin, end;
    if (device)
        emu_require_device(address, n_bytes, what);
    else if (emu_is_device_address((uintptr_t)address))
        emu_reject("%s: %p is device memory, where the kind of copy says host", what, address);
    else if (pinned_range((uintptr_t)address, &begin, &end) && n_bytes > end - (uintptr_t)address)
        emu_reject("%s: %zu bytes run past the end of %zu bytes of pinned memory", what, n_bytes,
                   (size_t)(end - begin));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n_bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    if (kind == cudaMemcpyDefault || kind == cudaMemcpyHostToHost)
        emu_reject("cudaMemcpyAsync: only copies that name the device's side are emulated");
    if (n_bytes == 0) return emu_result(cudaSuccess);
    bool from_device = kind != cudaMemcpyHostToDevice, to_device = kind != cudaMemcpyDeviceToHost;
    check_side(to, n_bytes, to_device, "cudaMemcpyAsync, destination");
    check_side(from, n_bytes, from_device, "cudaMemcpyAsync, source");
    if ((uintptr_t)to - (uintptr_t)from < n_bytes || (uintptr_t)from - (uintptr_t)to < n_bytes)
        emu_reject("cudaMemcpyAsync: source and destination overlap");

    uintptr_t begin, end;
    const void *host = !from_device ? from : !to_device ? to : NULL;
    bool pageable = host && !pinned_range((uintptr_t)host, &begin, &end);
    if (pageable && emu_stream_captures(stream))
        emu_reject("cudaMemcpyAsync of pageable host memory while capturing: the graph would come "
                   "back to %p whenever it runs", host);
    Copy *copy = new Copy{to, from, n_bytes, NULL};
    if (pageable && !from_device) {
        copy->staged = malloc(n_bytes);
        if (!copy->staged) emu_reject("no host memory to stage a copy of %zu bytes", n_bytes);
        memcpy(copy->staged, from, n_bytes);
    }
    emu_enqueue(stream, "cudaMemcpyAsync", copy_run, copy, copy_free);
    if (pageable && !to_device) emu_finish_stream(stream);
    return emu_result(cudaSuccess);
}

/* height rows of width bytes, pitch bytes apart, on both sides in device memory. */
struct RowsCopy {
    char *to;
    const char *from;
    size_t to_pitch, from_pitch, width, height;
};

static void rows_copy_run(void *arg) {
    RowsCopy *copy = (RowsCopy *)arg;
    for (size_t row = 0; row < copy->height; row++)
        memcpy(copy->to + row * copy->to_pitch, copy->from + row * copy->from_pitch, copy->width);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    if (kind != cudaMemcpyDeviceToDevice)
        emu_reject("cudaMemcpy2DAsync: only copies from device to device are emulated");
    if (to_pitch < width || from_pitch < width) return emu_result(cudaErrorInvalidValue);
    if (width == 0 || height == 0) return emu_result(cudaSuccess);
    size_t to_bytes = (height - 1) * to_pitch + width;
    size_t from_bytes = (height - 1) * from_pitch + width;
    emu_require_device(to, to_bytes, "cudaMemcpy2DAsync, destination");
    emu_require_device(from, from_bytes, "cudaMemcpy2DAsync, source");
    emu_enqueue(stream, "cudaMemcpy2DAsync", rows_copy_run,
                new RowsCopy{(char *)to, (const char *)from, to_pitch, from_pitch, width, height},
                [](void *arg) { delete (RowsCopy *)arg; });
    return emu_result(cudaSuccess);
}

struct Fill {
    void *memory;
    int value;
    size_t n_bytes;
};

cudaError_t cudaMemsetAsync(void *address, int value, size_t n_bytes, cudaStream_t stream) {
    DeviceLock lock = emu_lock();
    if (n_bytes == 0) return emu_result(cudaSuccess);
    emu_require_device(address, n_bytes, "cudaMemsetAsync");
    auto run = [](void *arg) {
        Fill *fill = (Fill *)arg;
        memset(fill->memory, fill->value, fill->n_bytes);
    };
    auto destroy = [](void *arg) { delete (Fill *)arg; };
    emu_enqueue(stream, "cudaMemsetAsync", run, new Fill{address, value, n_bytes}, destroy);
    return emu_result(cudaSuccess);
}
