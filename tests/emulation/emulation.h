/* The emulated device as the stand-ins of the libraries (cuBLASLt, cuDNN, NCCL) see it.
 *
 * A call of a library does not compute: it checks what the real one would check, and enqueues.  The
 * work runs later, when a synchronisation needs it, in an order that only streams and events
 * constrain; until then device memory cannot be touched at all. */
#ifndef TMD_EMULATION_H
#define TMD_EMULATION_H

#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Lets run(arg) happen once all that `stream` has been given before is done; then free_arg(arg),
 * which may be NULL.  `what` names the work in messages and must live as long as the program. */
void emu_enqueue(cudaStream_t stream, const char *what, void (*run)(void *arg), void *arg,
                 void (*free_arg)(void *arg));

/* Ends the program unless [address, address + n_bytes) lies in one live allocation of device
 * memory. */
void emu_require_device(const void *address, size_t n_bytes, const char *what);

/* Of the allocation at `memory`, what `stream` is given from now on may touch the first n_bytes only.
 * What lies beyond them is lost: poison, should a later claim give it back. */
void emu_claim(cudaStream_t stream, void *memory, size_t n_bytes);

/* A mistake that a real device would punish with undefined behaviour: says so and aborts. */
void emu_reject(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif

#endif
