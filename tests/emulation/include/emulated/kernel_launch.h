/* Launches of kernels on the emulated device, and their shared memory. */
#ifndef TMD_EMULATED_KERNEL_LAUNCH_H
#define TMD_EMULATED_KERNEL_LAUNCH_H

#include <tuple>

#include "../../emulation.h"

struct EmuLaunch {
    const char *kernel;
    const void *function;
    dim3 grid, block;
    size_t shared_bytes;
};

extern "C" {
/* Whether a device would take this launch; otherwise tells why on stderr and leaves
 * cudaErrorInvalidConfiguration for cudaGetLastError. */
bool emu_launch_allowed(const EmuLaunch *launch);

/* Ends the program unless `pointer` is null or of memory that kernels reach: device or pinned. */
void emu_require_kernel_pointer(const EmuLaunch *launch, const void *pointer);

/* Calls thread(arg) for every thread of every block.  For use inside enqueued work. */
void emu_run_grid(const EmuLaunch *launch, void (*thread)(void *arg), void *arg);

/* The block's memory of the declaration `site`, the same for all its threads. */
void *emu_shared_array(const void *site, size_t n_bytes, size_t alignment);
void *emu_shared_dynamic(void);
}

/* A launch in two steps, so that arguments convert as in a call of the kernel:
 *     EmuKernel(name, kernel, grid, block, shared_bytes, stream)(arguments...) */
template <typename... Params> class EmuKernel {
    EmuLaunch launch;
    void (*kernel)(Params...);
    cudaStream_t stream;

    struct Call {
        EmuLaunch launch;
        void (*kernel)(Params...);
        std::tuple<Params...> arguments; /* copies, as of the launch */
    };

    static void run_thread(void *arg) {
        Call *call = static_cast<Call *>(arg);
        std::apply(call->kernel, call->arguments);
    }
    static void run(void *arg) {
        emu_run_grid(&static_cast<Call *>(arg)->launch, run_thread, arg);
    }
    static void destroy(void *arg) {
        delete static_cast<Call *>(arg);
    }
    template <typename T> void check(const T &argument) const {
        if constexpr (std::is_pointer_v<T>) emu_require_kernel_pointer(&launch, argument);
    }

  public:
    EmuKernel(const char *name, void (*kernel_)(Params...), dim3 grid, dim3 block,
              size_t shared_bytes, cudaStream_t stream_)
        : launch{name, reinterpret_cast<const void *>(kernel_), grid, block, shared_bytes},
          kernel(kernel_), stream(stream_) {
    }
    void operator()(Params... arguments) const {
        if (!emu_launch_allowed(&launch)) return;
        (check(arguments), ...);
        emu_enqueue(stream, launch.kernel, run, new Call{launch, kernel, {arguments...}}, destroy);
    }
};

#define EMU_LAUNCH(stream, kernel, grid, block, shared_bytes, ...)                                 \
    EmuKernel(#kernel, kernel, grid, block, shared_bytes, stream)(__VA_ARGS__)

/* A static marks the declaration: every instance of a kernel template has its own. */
#define SHARED_ARRAY(type, name, n_elems)                                                          \
    static char name##_site;                                                                       \
    type(&name)[n_elems] = *static_cast<type(*)[n_elems]>(                                         \
        emu_shared_array(&name##_site, sizeof(type) * (n_elems), alignof(type)))
#define SHARED_DYNAMIC(type, name) type *name = static_cast<type *>(emu_shared_dynamic())

#endif
