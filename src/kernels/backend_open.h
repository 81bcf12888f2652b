/* One of the machines by name: the host's processors, or a CUDA device where the build has them. */
#ifndef TMD_BACKEND_OPEN_H
#define TMD_BACKEND_OPEN_H

#include "error.h"
#include "kernels/backend.h"

enum BackendKind { BACKEND_CPU, BACKEND_CUDA };

/* The widest token on CUDA: kernels of norms and gates hold one in the registers of a block. */
enum { BACKEND_CUDA_MAX_DIM = 10240 };

struct BackendChoice {
    enum BackendKind kind;
    enum Dtype precision; /* cuda: what an Act is, DTYPE_BF16 or DTYPE_F32; the CPU's is DTYPE_F32 */
    bool deterministic;   /* cuda: the same bits for the same input from the libraries, too */
    bool tune_gemm;       /* cuda: each matrix product by the fastest algorithm, measured once */
    bool every_plan; /* cuda: cuDNN's plans of all heuristics are timed, not only of the first */
    bool graphs; /* cuda: regions that run often are kept as CUDA graphs and launched whole */
};

/* `local_rank`: of this process on its host; each takes a device of its own where there are enough.
 * Fails, in one sentence, when the build or the machine does not have what is asked for. */
bool backend_open(struct BackendChoice choice, int local_rank, struct Backend **be,
                  struct Error *err);

#endif
