/* The table of operations is replaced by one that writes arguments down while a region is only
 * listened to, and hands them to the real operations otherwise. */
#include "kernels/cuda/graph_capture.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_state.h"
#include "kernels/op_cost.h"

/* What a region's operations wrote down. */
struct Transcript {
    char *bytes;
    size_t n_bytes, capacity;
};

struct Region {
    struct Transcript key;
    cudaGraphExec_t graph; /* NULL: seen once, or refused */
    bool refused;          /* the device had no memory for it */
};

struct CudaGraphs {
    enum { OUTSIDE, LISTENING, DOING } at; /* as for regions */
    struct Transcript heard;
    struct Region regions[CUDA_MAX_REGIONS];
    int n_regions;
    struct LearnedRegions learned;
};

/* ---- listening */

/* Those whose arguments say all that they read and write: none is in host memory.  What the blocks
 * of a network are made of. */
static const bool can_be_heard[OP_COUNT] = {
    [OP_rows_add] = true,          [OP_layer_norm_forward] = true,  [OP_qk_norm_forward] = true,
    [OP_gate_forward] = true,      [OP_gate_norm_forward] = true,   [OP_linear_forward] = true,
    [OP_attention_forward] = true, [OP_linear_gelu_forward] = true, [OP_act_patches_scatter] = true,
};

static void write_down(struct Transcript *t, const void *bytes, size_t n_bytes) {
    if (t->n_bytes + n_bytes > t->capacity) {
        t->capacity = 2 * (t->n_bytes + n_bytes);
        t->bytes = xrealloc(t->bytes, t->capacity);
    }
    memcpy(t->bytes + t->n_bytes, bytes, n_bytes);
    t->n_bytes += n_bytes;
}

/* Whether `op` is to write its arguments down instead of doing anything. */
static bool hears(struct CudaGraphs *graphs, enum Op op) {
    if (graphs->at != LISTENING) return false;
    TMD_CHECK(can_be_heard[op], "%s does not belong into a region that runs often", op_name(op));
    write_down(&graphs->heard, &op, sizeof op);
    return true;
}

/* HEAR_EACH(a, b, ...) is HEAR(a) HEAR(b) ...: each HEAR_NEXT leaves another behind, that the next
 * scan of the text finds. */
#define HEAR_EACH(...) SCAN_AGAIN(SCAN_AGAIN(SCAN_AGAIN(SCAN_AGAIN(HEAR_NEXT(__VA_ARGS__)))))
#define SCAN_AGAIN(...) SCAN_ONCE(SCAN_ONCE(SCAN_ONCE(SCAN_ONCE(__VA_ARGS__))))
#define SCAN_ONCE(...) __VA_ARGS__
#define HEAR_NEXT(argument, ...) HEAR(argument) __VA_OPT__(HEAR_LATER PARENTHESES(__VA_ARGS__))
#define HEAR_LATER() HEAR_NEXT
#define PARENTHESES ()

/* Through a copy, because the padding inside an argument may differ from time to time. */
#define HEAR(argument)                                                                             \
    {                                                                                              \
        __typeof__(argument) copy = argument;                                                      \
        __builtin_clear_padding(&copy);                                                            \
        write_down(&graphs->heard, &copy, sizeof copy);                                            \
    }

#define LISTENER(op, params, names)                                                                \
    static void listening_##op(const struct Backend *be, BACKEND_UNWRAP params) {                  \
        struct CudaGraphs *graphs = cuda_state(be)->graphs;                                        \
        if (hears(graphs, OP_##op)) {                                                              \
            HEAR_EACH(BACKEND_UNWRAP names)                                                        \
        } else {                                                                                   \
            cuda_##op(be, BACKEND_UNWRAP names);                                                   \
        }                                                                                          \
    }
MEMORY_OPS(LISTENER)
COMPUTE_OPS(LISTENER)

/* ---- regions */

static struct Region *find_heard(struct CudaGraphs *graphs) {
    const struct Transcript *heard = &graphs->heard;
    for (int i = 0; i < graphs->n_regions; i++) {
        const struct Transcript *key = &graphs->regions[i].key;
        if (key->n_bytes == heard->n_bytes && memcmp(key->bytes, heard->bytes, key->n_bytes) == 0)
            return &graphs->regions[i];
    }
    return NULL;
}

static void remember_heard(struct CudaGraphs *graphs) {
    if (graphs->n_regions == CUDA_MAX_REGIONS) return;
    struct Region *region = &graphs->regions[graphs->n_regions++];
    write_down(&region->key, graphs->heard.bytes, graphs->heard.n_bytes);
}

/* Captures what the region does, which does not happen by that. */
static cudaGraph_t capture(const struct Backend *be, void (*region)(void *), void *context) {
    cudaStream_t stream = cuda_state(be)->stream;
    cudaGraph_t captured;
    /* other threads are about other things, and may well wait or allocate */
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    region(context);
    CUDA_CHECK(cudaStreamEndCapture(stream, &captured));
    return captured;
}

static void make_graph(const struct Backend *be, struct Region *known, cudaGraph_t captured) {
    struct LearnedRegions *learned = &cuda_state(be)->graphs->learned;
    int64_t before = be->memory_available(be);
    cudaError_t status = cudaGraphInstantiate(&known->graph, captured, 0);
    CUDA_CHECK(cudaGraphDestroy(captured));
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* forgotten: it can be done without */
        known->graph = NULL;
        known->refused = true;
        return;
    }
    TMD_CHECK(status == cudaSuccess, "device %d: cudaGraphInstantiate: %s", cuda_device_at_work(),
              cudaGetErrorString(status));
    CUDA_CHECK(cudaGraphUpload(known->graph, cuda_state(be)->stream));
    learned->n_kept++;
    learned->n_bytes += before - be->memory_available(be);
}

static void listen_to(struct CudaGraphs *graphs, void (*region)(void *), void *context) {
    graphs->heard.n_bytes = 0;
    graphs->at = LISTENING;
    region(context);
    graphs->at = DOING;
}

static void cuda_run_often(const struct Backend *be, void (*region)(void *), void *context) {
    struct CudaGraphs *graphs = cuda_state(be)->graphs;
    TMD_CHECK(graphs->at == OUTSIDE, "a region that runs often lies in another");
    listen_to(graphs, region, context);
    struct Region *known = find_heard(graphs);
    if (!known)
        remember_heard(graphs);
    else if (!known->graph && !known->refused)
        make_graph(be, known, capture(be, region, context));

    if (known && known->graph) {
        CUDA_CHECK(cudaGraphLaunch(known->graph, cuda_state(be)->stream));
        graphs->learned.n_launches++;
    } else {
        region(context);
    }
    graphs->at = OUTSIDE;
}

static struct LearnedRegions cuda_learned(const struct Backend *be) {
    return cuda_state(be)->graphs->learned;
}

void cuda_graphs_attach(struct Backend *be) {
#define LISTENING_ENTRY(op, params, names) be->op = listening_##op;
    MEMORY_OPS(LISTENING_ENTRY)
    COMPUTE_OPS(LISTENING_ENTRY)
    be->run_often = cuda_run_often;
    be->learned = cuda_learned;
    cuda_state(be)->graphs = xcalloc(sizeof(struct CudaGraphs));
}

void cuda_graphs_destroy(struct CudaGraphs *graphs) {
    if (!graphs) return;
    for (int i = 0; i < graphs->n_regions; i++) {
        if (graphs->regions[i].graph) CUDA_CHECK(cudaGraphExecDestroy(graphs->regions[i].graph));
        free(graphs->regions[i].key.bytes);
    }
    free(graphs->heard.bytes);
    free(graphs);
}
