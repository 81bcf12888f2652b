/* A backend of which every byte of memory is counted. */
#ifndef TMD_COUNTING_BACKEND_H
#define TMD_COUNTING_BACKEND_H

#include "kernels/backend.h"

struct CountingBackend {
    struct Backend table; /* first: what operations get is this */
    struct Backend *inner;
    int64_t n_bytes;
};

/* `inner` outlives it. */
struct CountingBackend counting_backend(struct Backend *inner);

#endif
