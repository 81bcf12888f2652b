/* Sums of gradients where they lie: in the memory of CUDA devices, over NCCL. */
#ifndef TMD_COMM_NCCL_H
#define TMD_COMM_NCCL_H

#include "kernels/backend.h"
#include "train/comm.h"

/* The communicator for buffers in `be`'s memory.  For a CUDA backend and several ranks it is a new one,
 * bootstrapped over `host`, to which it leaves everything that happens in host memory; it must be
 * destroyed before `host`.  In any other case it is `host` itself. */
struct Comm *comm_for_backend(struct Comm *host, const struct Backend *be);

#endif
