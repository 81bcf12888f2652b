/* What a build without CUDA has in the place of the CUDA backend. */
#include "kernels/cuda/backend_cuda.h"

bool backend_cuda_create(struct BackendCuda options, struct Backend **out, struct Error *err) {
    (void)options, (void)out;
    return error_set(err, "device.backend is cuda, but this program was built without it: expected "
                          "device.backend=cpu, or a build with cmake -DTMD_CUDA=ON");
}

/* There is no backend to ask. */
int64_t backend_cuda_free_bytes(const struct Backend *be) {
    TMD_CHECK(!be, "a CUDA backend in a build without it");
    return 0;
}

void backend_cuda_describe(const struct Backend *be, char *text, size_t n_bytes) {
    TMD_CHECK(!be && n_bytes, "a CUDA backend in a build without it");
    *text = 0;
}
