/* What a build without CUDA has in the place of the CUDA backend. */
#include "kernels/cuda/backend_cuda.h"

bool backend_cuda_create(struct BackendCuda options, struct Backend **out, struct Error *err) {
    (void)options, (void)out;
    return error_set(err, "device.backend is cuda, but this program was built without it: expected "
                          "device.backend=cpu, or a build with cmake -DTMD_CUDA=ON");
}
