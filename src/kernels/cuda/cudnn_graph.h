/* Operations that cuDNN computes, described to it as graphs (cudnn_backend.h's descriptors).
 *
 * A caller describes its graph once per shape, in a function that the cache calls when it meets
 * the key for the first time.  cuDNN's heuristics then name engines; those that compile and fit
 * the workspace are timed on the caller's own tensors, and the fastest plan serves that key for
 * the life of the process; a deterministic backend takes the heuristics' first.  So the first call
 * of a shape waits for the device and runs the graph several times: inputs must not be outputs,
 * and it must not happen while the stream is being captured.
 *
 *     struct Key { int64_t dims[5]; };
 *     static void describe(struct CudnnBuilder *b, const void *key) {
 *         const struct Key *k = key;
 *         cudnnBackendDescriptor_t op = cudnn_descriptor(b, CUDNN_BACKEND_OPERATION_...);
 *         cudnn_set_link(b, op, CUDNN_ATTR_OPERATION_..._XDESC, cudnn_tensor(b, &x));
 *         cudnn_add_operation(b, op);
 *     }
 *     struct CudnnGraph graph = {"a name", describe, &key, sizeof key, 0};
 *     struct CudnnBinding bindings[] = {{UID_X, x}, {UID_Y, y}};
 *     if (!cudnn_graph_run(be, &graph, bindings, 2, scratch)) ... a kernel of ours ...
 *
 * Refusals (no engine supports the graph, or not this version of cuDNN) are returned, and said once
 * on stderr, since what takes over is slower.  Every other failure ends the program. */
#ifndef TMD_CUDNN_GRAPH_H
#define TMD_CUDNN_GRAPH_H

#include "kernels/cuda/cuda_state.h"

/* ---- describing a graph */

/* The descriptors of one graph.  After a first refusal all that is added is ignored. */
struct CudnnBuilder;

enum { CUDNN_GRAPH_MAX_RANK = 5 };

/* A tensor that a graph reads or writes; its address comes with every run. */
struct CudnnTensor {
    int64_t uid; /* its name within the graph: 1, 2, ... */
    cudnnDataType_t type;
    int rank;
    int64_t dims[CUDNN_GRAPH_MAX_RANK], strides[CUDNN_GRAPH_MAX_RANK]; /* in elements */
    bool on_host;    /* a scalar that the host holds when the graph is run */
    bool is_virtual; /* between two operations of the graph; has no address */
};
enum { CUDNN_TENSOR_ALIGNMENT = 16 }; /* bytes, of every address on the device: what engines want */

cudnnBackendDescriptor_t cudnn_tensor(struct CudnnBuilder *b, const struct CudnnTensor *tensor);

/* An operation (or what one needs, such as a convolution), its attributes, its end. */
cudnnBackendDescriptor_t cudnn_descriptor(struct CudnnBuilder *b,
                                          cudnnBackendDescriptorType_t type);
void cudnn_set(struct CudnnBuilder *b, cudnnBackendDescriptor_t descriptor,
               cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n_elems,
               const void *values);
void cudnn_set_link(struct CudnnBuilder *b, cudnnBackendDescriptor_t descriptor,
                    cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t to);
void cudnn_finalize(struct CudnnBuilder *b, cudnnBackendDescriptor_t descriptor);
/* Refuses the graph to versions of cuDNN (as cudnnGetVersion counts) before `version`. */
void cudnn_require_version(struct CudnnBuilder *b, size_t version);
/* Finalizes the operation and makes it one of the graph's. */
void cudnn_add_operation(struct CudnnBuilder *b, cudnnBackendDescriptor_t operation);

/* ---- running it */

#define CUDNN_NOTE_BIT(note) (1u << (note))

struct CudnnGraph {
    const char *what; /* for messages */
    void (*describe)(struct CudnnBuilder *b, const void *key);
    /* What distinguishes this graph from others of the same `describe`, compared byte by byte:
     * clear the padding. */
    const void *key;
    int64_t key_bytes;
    /* Engines with one of these numerical notes are left out: CUDNN_NOTE_BIT(...) | ... */
    unsigned int forbidden_notes;
};

struct CudnnBinding {
    int64_t uid;
    const void *memory; /* device memory, or host memory where the tensor is on_host */
};

/* The part of the workspace that an engine may have, from the byte `begin` on; engines that need more
 * are not considered. */
struct CudnnScratch {
    int64_t begin, n_bytes;
};
/* The backend's workspace from `n_bytes_taken` (rounded up to 256) on. */
struct CudnnScratch cudnn_scratch_after(const struct Backend *be, int64_t n_bytes_taken);

/* Enqueues the graph on the backend's stream.  false: refused, nothing was done. */
bool cudnn_graph_run(const struct Backend *be, const struct CudnnGraph *graph,
                     const struct CudnnBinding *bindings, int n_bindings,
                     struct CudnnScratch scratch);

/* For a graph that its caller cannot let run: enters, and says once, a refusal.  Returns false. */
bool cudnn_graph_refuse(const struct Backend *be, const struct CudnnGraph *graph,
                        const char *reason);

#endif
