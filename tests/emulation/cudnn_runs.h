/* Whether the emulated cuDNN was used at all: for tests of the backend. */
#ifndef TMD_EMULATED_CUDNN_RUNS_H
#define TMD_EMULATED_CUDNN_RUNS_H

#include <cudnn.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How often an operation of this type was run so far. */
int64_t emu_cudnn_runs(cudnnBackendDescriptorType_t operation);

#ifdef __cplusplus
}
#endif

#endif
