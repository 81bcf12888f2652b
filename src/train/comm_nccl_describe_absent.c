/* In a build without CUDA nobody communicates over NCCL. */
#include "train/comm_describe.h"

#include <stdio.h>

void comm_nccl_describe(char *text, size_t n_bytes) {
    snprintf(text, n_bytes, "no NCCL in this build");
}
