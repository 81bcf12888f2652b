/* The CUDA backend as seen from outside: made here, used through the table of backend.h.  No CUDA
 * header is needed to include this one. */
#ifndef TMD_BACKEND_CUDA_H
#define TMD_BACKEND_CUDA_H

#include "error.h"
#include "kernels/backend.h"

struct BackendCuda {
    enum Dtype act_dtype; /* DTYPE_BF16, or DTYPE_F32 for parity checks */
    int device;           /* a rank's number on its host; wraps round where devices are fewer */
    bool deterministic;   /* the same bits for the same input from the libraries, too */
    /* The fastest algorithm of each matrix product is measured when it is first seen, and kept in a
     * file (gemm_cache.h) with which later runs on this machine compute the same bits.  Otherwise it
     * is the library's first suggestion. */
    bool tune_gemm;
    /* Of a graph, cuDNN's plans of all heuristics are timed, not only those of the first that has any:
     * slow to begin with, and for comparison.  Not where the backend is deterministic. */
    bool every_plan;
    bool graphs; /* regions that run often (backend.h) are kept as CUDA graphs and launched whole */
};

/* Fails, in one sentence, without a device, with too old a driver, an unknown architecture, or no
 * room for the libraries' workspace. */
bool backend_cuda_create(struct BackendCuda options, struct Backend **out, struct Error *err);

/* The cudaStream_t on which all operations run, for the communicator's fences. */
void *backend_cuda_stream(const struct Backend *be);

#endif
