/* The CUDA backend's inside: what its files share.
 *
 * Each operation of the table is a function cuda_<op> with C linkage, in a .c file if it calls a
 * library, in a .cu file if it has kernels of its own.  All operations only enqueue work on
 * `stream`, in order; upload_start and download_start use streams of their own, and only download
 * waits.  An Act is bfloat16, or float32 in the parity mode.  Every operation gives the same bits
 * for the same input: sums over rows are made in two passes, never with atomics. */
#ifndef TMD_CUDA_STATE_H
#define TMD_CUDA_STATE_H

#include "kernels/cuda/cuda_check.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/backend.h"
#include "workspace_claim.h"

struct CudaGemm;  /* linear.c: the algorithm of each shape */
struct CudaCudnn; /* cudnn_graph.c: the plan of each graph */
struct CudaGraphs; /* graph_capture.c: regions kept as CUDA graphs */
struct CudaUploads; /* upload.c: copies in parallel with the operations */
struct CudaDownloads; /* download.c: the same in the other direction */

struct CudaState {
    int device, n_multiprocessors;
    cudaStream_t stream; /* all that computes */
    /* Scratch of the operation that runs on `stream`: partial sums, libraries' workspaces.  The
     * next operation overwrites it. */
    void *workspace;
    int64_t workspace_bytes;
    bool deterministic; /* as for the library calls that offer a choice; our kernels always are */
    bool tune_gemm;     /* matrix products are timed, see gemm.h */
    bool every_plan;    /* of cuDNN: see backend_cuda.h */
    struct CudaGemm *gemm;
    struct CudaCudnn *cudnn;
    struct CudaGraphs *graphs; /* NULL: none are kept */
    struct CudaUploads *uploads;
    struct CudaDownloads *downloads;
};

static inline struct CudaState *cuda_state(const struct Backend *be) {
    return (struct CudaState *)be->state;
}

/* The first n_bytes of the workspace, 256-byte aligned.  What stands there stays over further calls
 * that ask for as much or more; what lies beyond is nobody's. */
static inline void *cuda_workspace(const struct Backend *be, int64_t n_bytes) {
    struct CudaState *state = cuda_state(be);
    TMD_CHECK(n_bytes <= state->workspace_bytes, "%lld bytes of workspace wanted, %lld there",
              (long long)n_bytes, (long long)state->workspace_bytes);
    cuda_workspace_claimed(state->stream, state->workspace, (size_t)n_bytes);
    return state->workspace;
}

#define CUDA_PROTOTYPE(name, params, names)                                                        \
    void cuda_##name(const struct Backend *be, BACKEND_UNWRAP params);
MEMORY_OPS(CUDA_PROTOTYPE)
COMPUTE_OPS(CUDA_PROTOTYPE)

struct CudaGemm *cuda_gemm_create(const struct CudaState *state);
void cuda_gemm_destroy(struct CudaGemm *gemm);
struct CudaCudnn *cuda_cudnn_create(const struct CudaState *state);
void cuda_cudnn_destroy(struct CudaCudnn *cudnn);
struct CudaUploads *cuda_uploads_create(void);
void cuda_uploads_destroy(struct CudaUploads *uploads);
void cuda_uploads_finish(const struct CudaUploads *uploads);
void cuda_upload_wait(const struct Backend *be);
struct CudaDownloads *cuda_downloads_create(void);
void cuda_downloads_destroy(struct CudaDownloads *downloads);
void cuda_downloads_finish(const struct CudaDownloads *downloads);
void cuda_download_wait(const struct Backend *be);
void *cuda_pinned_alloc(const struct Backend *be, int64_t n_bytes);
void cuda_pinned_free(const struct Backend *be, void *memory);

#ifdef __cplusplus
}
#endif

#endif
