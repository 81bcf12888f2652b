/* In a build without CUDA there is no CUDA backend. */
#include "train/comm_nccl.h"

struct Comm *comm_nccl_create(struct Comm *host, const struct Backend *be) {
    (void)host;
    fatal_at(__FILE__, __LINE__, "comm_nccl_create", "no NCCL for backend '%s'", be->name);
}
