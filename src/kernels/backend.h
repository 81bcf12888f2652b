/* What a device can do: one table of operations, written once per machine.
 *
 * Model and step code calls `be->linear_forward(be, ...)` and never learns whether the CPU computes
 * it, a GPU, or a backend that only counts.  The contracts stand in the ops_*.h headers, one family
 * each; each family is a list macro, so that a backend that treats all operations alike (the meter,
 * the plan) is generated and cannot miss one.
 *
 * Types.  `Act` is one activation element in the backend's own type (float32 on the CPU, bfloat16 on
 * a GPU).  It is incomplete on purpose: nobody outside a backend can read one or do arithmetic on such
 * a pointer; act_at() moves it.  `float` and `double` pointers are device memory in that type.
 * Host memory is only what a contract calls so.
 *
 * Layout.  Everything is row-major and dense unless a stride is given; B samples, S tokens (rows) per
 * sample, D channels.  Tokens of a sample are consecutive rows.
 *
 * Gradients.  Gradients of parameters accumulate (`dw += ...`); gradients of activations overwrite,
 * except where a contract says "accumulates".  A NULL gradient pointer means "not wanted". */
#ifndef TMD_BACKEND_H
#define TMD_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "dtype.h"

typedef struct ActElem Act;

struct Backend;
struct OpTally;

/* List macros: OP(name, (typed parameters), (names of the parameters)). */
#include "kernels/ops_memory.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_norm.h"
#include "kernels/ops_attention.h"
#include "kernels/ops_embed.h"
#include "kernels/ops_video.h"
#include "kernels/ops_loss.h"
#include "kernels/ops_conv.h"
#include "kernels/ops_optim.h"

#define COMPUTE_OPS(OP)                                                                            \
    LINEAR_OPS(OP) NORM_OPS(OP) ATTENTION_OPS(OP) EMBED_OPS(OP) VIDEO_OPS(OP) LOSS_OPS(OP)         \
    CONV_OPS(OP) OPTIM_OPS(OP)

/* What run_often (below) has learned so far; all zero for a backend that learns nothing. */
struct LearnedRegions {
    int n_kept;         /* regions */
    int64_t n_bytes;    /* device memory that they take */
    int64_t n_launches; /* how often one of them was run as a whole */
};

#define BACKEND_UNWRAP(...) __VA_ARGS__
#define BACKEND_MEMBER(name, params, names)                                                        \
    void (*name)(const struct Backend *be, BACKEND_UNWRAP params);

struct Backend {
    const char *name;
    enum Dtype act_dtype; /* what an Act is */
    void *state;          /* the backend's own */
    MEMORY_OPS(BACKEND_MEMBER)
    COMPUTE_OPS(BACKEND_MEMBER)
    void *(*memory_alloc)(const struct Backend *be, int64_t n_bytes); /* 64-byte aligned, zeroed */
    void (*memory_free)(const struct Backend *be, void *memory);
    /* Operations called from here on see what upload_start has brought (ops_memory.h). */
    void (*upload_wait)(const struct Backend *be);
    /* The host waits until every download_start is complete.  Any thread may call it. */
    void (*download_wait)(const struct Backend *be);
    /* Pinned host memory, for download_start; NULL: the machine does not give so much. */
    void *(*pinned_alloc)(const struct Backend *be, int64_t n_bytes);
    void (*pinned_free)(const struct Backend *be, void *memory);
    /* Bytes that memory_alloc could still hand out; on the CPU, the memory that the machine has. */
    int64_t (*memory_available)(const struct Backend *be);
    /* What it runs on, in a line: "cpu", or a device with the versions of its libraries. */
    void (*describe)(const struct Backend *be, char *text, size_t n_bytes);
    void (*finish)(const struct Backend *be); /* waits until all operations so far are done */
    /* Does the operations of region(context) once.  To be used for regions that are run again and
     * again with the same operations on the same memory: a device may learn such a region (a CUDA
     * graph) and from then on run it as a whole.  To learn it the backend may call `region` more
     * than once, so that whatever it does on the host must not depend on how often it is called.
     * No operation in it may read host memory, allocate or wait. */
    void (*run_often)(const struct Backend *be, void (*region)(void *context), void *context);
    struct LearnedRegions (*learned)(const struct Backend *be);
    void (*destroy)(struct Backend *be);
};

/* The reference: float32 on the host, OpenMP, oneDNN for matrix products and convolutions. */
struct Backend *backend_cpu_create(void);

/* Computes nothing: for measuring memory and counting arithmetic.  `act_dtype` is that of the backend
 * it stands for. */
struct Backend *backend_plan_create(enum Dtype act_dtype);
/* Bytes that memory_alloc has handed out so far. */
int64_t backend_plan_allocated(const struct Backend *be);
/* [OP_COUNT] of op_cost.h: what the operations called so far would cost. */
const struct OpTally *backend_plan_tallies(const struct Backend *be);

/* run_often and learned for backends that learn nothing. */
static inline void backend_run_once(const struct Backend *be, void (*region)(void *context),
                                    void *context) {
    (void)be;
    region(context);
}
static inline struct LearnedRegions backend_learned_none(const struct Backend *be) {
    (void)be;
    return (struct LearnedRegions){0, 0, 0};
}

/* pinned_alloc and pinned_free for backends in host memory. */
static inline void *backend_host_alloc(const struct Backend *be, int64_t n_bytes) {
    (void)be;
    return malloc((size_t)n_bytes);
}
static inline void backend_host_free(const struct Backend *be, void *memory) {
    (void)be;
    free(memory);
}

/* base + n_elems */
static inline Act *act_at(const struct Backend *be, const Act *base, int64_t n_elems) {
    return (Act *)((char *)(uintptr_t)base + n_elems * dtype_bytes(be->act_dtype));
}

#endif
