/* Ranks with a CUDA device each, over NCCL. */
#ifndef TMD_COMM_NCCL_H
#define TMD_COMM_NCCL_H

#include "kernels/backend.h"
#include "train/comm.h"

/* `be` is a CUDA backend.  Bootstrapped over `host`, to which it leaves everything that happens in
 * host memory.  Collective; it must be destroyed before both. */
struct Comm *comm_nccl_create(struct Comm *host, const struct Backend *be);

#endif
