/* The CPU's backend, but every byte of memory is counted. */
#ifndef TMD_COUNTING_BACKEND_H
#define TMD_COUNTING_BACKEND_H

#include "kernels/backend.h"

struct CountingBackend {
    struct Backend table; /* first: what operations get is this */
    struct Backend *cpu;
    int64_t n_bytes;
};

/* Destroy `cpu`. */
struct CountingBackend counting_backend(void);

#endif
