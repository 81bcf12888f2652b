/* Values are converted on the host and moved with upload and download. */
#include "act_values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "error.h"
#include "philox.h"

Act *act_random(const struct Backend *be, int64_t n_elems, uint64_t seed) {
    float *values = xmalloc((unsigned long)n_elems * sizeof *values);
    int64_t n_bytes = n_elems * dtype_bytes(be->act_dtype);
    void *packed = xmalloc((unsigned long)n_bytes), *device = be->memory_alloc(be, n_bytes);
    for (int64_t i = 0; i < n_elems; i++)
        values[i] = (float)philox_uniform(philox(seed, (uint32_t)i, 0, 0, 0).word[0]) - 0.5f;
    dtype_from_f32(packed, values, be->act_dtype, n_elems);
    be->upload(be, device, packed, n_bytes);
    free(packed);
    free(values);
    return device;
}

void act_take(const struct Backend *be, float *out, void *device, enum Dtype dtype,
              int64_t n_elems) {
    int64_t n_bytes = n_elems * dtype_bytes(dtype);
    void *packed = xmalloc((unsigned long)n_bytes);
    be->download(be, packed, device, n_bytes);
    dtype_to_f32(out, packed, dtype, n_elems);
    free(packed);
    be->memory_free(be, device);
}

void check_close(const float *a, const float *b, int64_t n_elems, double tolerance) {
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < n_elems; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    assert_true(norm > 0.0);
    assert_true(difference <= tolerance * tolerance * norm); /* not so for NaN */
}
