/* In a build without CUDA all memory is the host's. */
#include "train/comm_nccl.h"

struct Comm *comm_for_backend(struct Comm *host, const struct Backend *be) {
    (void)be;
    return host;
}
