/* Device tensors of a test, filled and read as float32 on the host, whatever an Act is. */
#ifndef TMD_TEST_ACT_VALUES_H
#define TMD_TEST_ACT_VALUES_H

#include "kernels/backend.h"

/* Device memory with n_elems draws from [-0.5, 0.5); the same for the same seed. */
Act *act_random(const struct Backend *be, int64_t n_elems, uint64_t seed);

/* Reads n_elems elements of `dtype`, and gives the memory back. */
void act_take(const struct Backend *be, float *out, void *device, enum Dtype dtype,
              int64_t n_elems);

/* Fails the test unless |a - b| <= tolerance |b| in the root mean square, and b is not all 0. */
void check_close(const float *a, const float *b, int64_t n_elems, double tolerance);

#endif
