/* The CPU backend's inside: what its files share.
 *
 * An Act is a float here.  Every operation gives the same bits for the same input, and, where its file
 * does not say otherwise, for any number of threads too. */
#ifndef TMD_CPU_H
#define TMD_CPU_H

#include "kernels/backend.h"

struct CpuConv;

struct CpuState {
    int n_threads;
    float *scratch; /* CPU_SCRATCH_FLOATS per thread */
    struct CpuConv *conv;
};

/* Two panels of attention probabilities; see attention.c. */
enum { CPU_SCRATCH_FLOATS = 2 * 128 * 512 };

/* The scratch of the calling thread. */
float *cpu_thread_scratch(const struct Backend *be);

static inline float *act_f32(Act *x) {
    return (float *)x;
}
static inline const float *act_const_f32(const Act *x) {
    return (const float *)x;
}

/* C = alpha op(A) op(B) + beta C, row-major with leading dimensions; op transposes on 'T'.
 * C [m, n], inner dimension k. */
void cpu_gemm(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
              int64_t ldc);

#define CPU_PROTOTYPE(name, params, names)                                                         \
    void cpu_##name(const struct Backend *be, BACKEND_UNWRAP params);
MEMORY_OPS(CPU_PROTOTYPE)
COMPUTE_OPS(CPU_PROTOTYPE)

#endif
