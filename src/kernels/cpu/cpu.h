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
    float *panels;  /* GEMM_SHARED_FLOATS: the packed operand of the product at work */
    struct CpuConv *conv;
};

enum {
    /* What a block of attention needs (attention.c), and more than a block of a product (gemm.h). */
    CPU_SCRATCH_FLOATS = 448 * 1024
};

/* The scratch of the calling thread. */
float *cpu_thread_scratch(const struct Backend *be);

static inline float *act_f32(Act *x) {
    return (float *)x;
}
static inline const float *act_const_f32(const Act *x) {
    return (const float *)x;
}

#define CPU_PROTOTYPE(name, params, names)                                                         \
    void cpu_##name(const struct Backend *be, BACKEND_UNWRAP params);
MEMORY_OPS(CPU_PROTOTYPE)
COMPUTE_OPS(CPU_PROTOTYPE)

#endif
