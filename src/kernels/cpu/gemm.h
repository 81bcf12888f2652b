/* Matrix products of any size, on all threads.
 *
 * Each element of the result is one sum whose order depends on nothing but k, so the bits are the
 * same for any number of threads.  Nothing is allocated: packed operands lie in the backend's
 * scratch. */
#ifndef TMD_GEMM_H
#define TMD_GEMM_H

#include "kernels/backend.h"
#include "kernels/cpu/tile_gemm.h"

/* A matrix or its transpose, as it lies in memory: op(X) of [rows, columns]. */
struct GemmOperand {
    const float *at;
    int64_t ld; /* between rows as they lie, i.e. of X and not of op(X) */
    bool transposed;
};

/* Called on a part of the result as soon as it is complete and still in a cache; by many threads at
 * a time. */
struct GemmFinish {
    void (*run)(const void *context, int64_t row, int64_t n_rows, int64_t column,
                int64_t n_columns);
    const void *context;
};

struct Gemm {
    int64_t m, n, k;
    struct GemmOperand a, b;
    struct TileAddend addend; /* a row of biases, C itself, or nothing */
    float *c;
    int64_t ldc;
    struct GemmFinish finish; /* run NULL: none */
};

/* C [m, n] = op(A) op(B) + D. */
void cpu_gemm(const struct Backend *be, const struct Gemm *g);

enum {
    GEMM_DEPTH = 512,                 /* of k: a panel of B is GEMM_DEPTH x TILE_COLUMNS */
    GEMM_COLUMNS = 32 * TILE_COLUMNS, /* of n: B is packed in such stretches */
    GEMM_ROWS = 16 * TILE_ROWS,       /* of m: a block of A for one thread at a time */
    GEMM_SHARED_FLOATS = GEMM_DEPTH * GEMM_COLUMNS,
    GEMM_THREAD_FLOATS = GEMM_DEPTH * GEMM_ROWS + 8 * GEMM_ROWS / TILE_ROWS
};

#endif
