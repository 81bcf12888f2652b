/* What the parts of the emulated device share: machine.cpp (settings, errors), memory.cpp,
 * transfers.cpp, streams.cpp, graphs.cpp, blocks.cpp (kernels) over shared.cpp and fiber.cpp,
 * fault.cpp. */
#ifndef TMD_EMULATED_DEVICE_H
#define TMD_EMULATED_DEVICE_H

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "emulation.h"

/* ---- machine.cpp */

struct Machine {
    int n_devices, architecture, driver;
    size_t memory_bytes, pinned_bytes; /* of a device; that the host gives to all */
    bool others_first; /* TMD_EMULATED_ORDER=eager-others */
    bool strict;
    long long fault; /* the number of the piece of work at which the device dies; 0: never */
};
const Machine &emu_machine(void);

/* Dynamic shared memory that a kernel may have after cudaFuncSetAttribute. */
int emu_shared_optin_bytes(void);
enum { SHARED_BYTES = 48 * 1024 };

/* Held by every call of the runtime: the device does one thing at a time. */
using DeviceLock = std::unique_lock<std::recursive_mutex>;
DeviceLock emu_lock(void);

int emu_current_device(void);
/* What a call is to return: `error`, or that the device died.  Leaves it for cudaGetLastError. */
cudaError_t emu_result(cudaError_t error);

/* From now on nothing is computed, and every call fails with cudaErrorLaunchFailure. */
void emu_device_dies(void);
bool emu_device_died(void);

/* ---- memory.cpp */

/* Lets device memory be touched, before the device does something; and no longer, before the host
 * goes on.  Both do nothing where it is so already. */
void emu_open_memory(void);
void emu_close_memory(void);

/* Ends the program if something wrote beside an allocation.  `what`: the work that was last. */
void emu_check_guards(const char *what);

bool emu_is_device_address(uintptr_t address);

/* Books memory that nobody can touch; false if the device does not have it. */
bool emu_take_memory(int device, size_t n_bytes);
void emu_give_memory_back(int device, size_t n_bytes);

/* ---- graphs.cpp */

/* Calls that a device may refuse while a graph is captured: because they wait for all of it, or
 * because they may wait unseen, which the mode of the capture can allow to a thread. */
enum EmuUnsafe { EMU_UNSAFE_FOR_DEVICE, EMU_UNSAFE_FOR_THREAD };

bool emu_stream_captures(cudaStream_t stream);

/* True, with the error in place and the captures spoilt, if such a call has to fail now. */
bool emu_capture_forbids(EmuUnsafe call);
/* The same for a call that waits for `stream`. */
bool emu_capture_forbids_waiting(cudaStream_t stream);

/* ---- streams.cpp */

void emu_finish_all(void);
/* Runs what the stream was given so far. */
void emu_finish_stream(cudaStream_t stream);
/* What the device is doing, for messages; NULL when idle. */
const char *emu_work_at_hand(void);

/* ---- blocks.cpp */

/* Writes ", block (...), thread (...)" if a kernel's thread is running, and nothing otherwise. */
void emu_describe_thread(char *text, size_t n_bytes);

/* ---- shared.cpp */

/* Forgets the arrays of the last kernel; what is declared from now on belongs to the next. */
void emu_shared_begin_grid(size_t dynamic_bytes);
void emu_shared_begin_block(void);
/* Ends the program if the block wrote beside its arrays. */
void emu_shared_check_red_zones(void);

/* ---- fault.cpp */

/* Lets a touch of memory that must not be touched end the program with a sentence.  Repeated calls
 * take the signal back from whoever has taken it since. */
void emu_watch_faults(void);

/* Says what `address` is, if it belongs to device memory or a fiber's stack, and to whom it is
 * denied. */
bool emu_explain_device_address(uintptr_t address, char *text, size_t n_bytes);
bool emu_explain_stack_address(uintptr_t address, char *text, size_t n_bytes);

/* ---- poison, which the address sanitizer knows as well, where it is at work */

enum { POISON = 0xff }; /* NaN in every floating-point format, -1 in integers */

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define EMU_HIDE(address, n_bytes) ASAN_POISON_MEMORY_REGION(address, n_bytes)
#define EMU_SHOW(address, n_bytes) ASAN_UNPOISON_MEMORY_REGION(address, n_bytes)
#else
#define EMU_HIDE(address, n_bytes) ((void)(address), (void)(n_bytes))
#define EMU_SHOW(address, n_bytes) ((void)(address), (void)(n_bytes))
#endif

/* Whether all bytes still are POISON; sees what is hidden. */
bool emu_poison_intact(const void *memory, size_t n_bytes);

#endif
