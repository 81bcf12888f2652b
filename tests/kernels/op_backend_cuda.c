/* The operation tests on the CUDA backend; TMD_TEST_ACT=f32 (default) or bf16 says what an Act is,
 * TMD_TEST_WORKSPACE how many bytes of the workspace operations may use, so that small ones work in
 * parts, too. */
#include <stdlib.h>

#include "kernels/cuda/backend_cuda.h"
#include "kernels/cuda/cuda_state.h"
#include "op_check.h"

struct Backend *op_backend(void) {
    const char *name = getenv("TMD_TEST_ACT");
    struct BackendCuda options = {.act_dtype = DTYPE_F32, .deterministic = true};
    TMD_CHECK(!name || dtype_parse(name, &options.act_dtype), "TMD_TEST_ACT=%s", name);
    struct Backend *be;
    struct Error err;
    TMD_CHECK(backend_cuda_create(options, &be, &err), "%s", err.text);
    const char *workspace = getenv("TMD_TEST_WORKSPACE");
    if (workspace) cuda_state(be)->workspace_bytes = atoll(workspace);
    return be;
}
