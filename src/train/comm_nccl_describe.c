/* NCCL's version, in builds that have NCCL. */
#include "train/comm_describe.h"

#include <nccl.h>
#include <stdio.h>

/* NCCL codes a version as major * 10000 + minor * 100 + patch. */
void comm_nccl_describe(char *text, size_t n_bytes) {
    int code = 0;
    ncclGetVersion(&code);
    snprintf(text, n_bytes, "NCCL %d.%d.%d", code / 10000, code / 100 % 100, code % 100);
}
