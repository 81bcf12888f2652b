/* Backward passes of whole networks against finite differences of their forward pass.
 *
 * The loss of a network is the product of its outputs with fixed random cotangents, summed in
 * double.  For one tensor with gradient g its slopes along a few random directions d, central
 * differences of fourth order with steps that are large for float32, must be g . d.  The directions
 * know nothing of g, so that a gradient which lacks a part cannot hide it. */
#ifndef TMD_TESTS_GRADIENT_CHECK_H
#define TMD_TESTS_GRADIENT_CHECK_H

#include "kernels/arena.h"
#include "model/weights.h"

/* Root mean square of slope errors over that of the slopes; float32 gives about 1e-3. */
#define GRADIENT_TOLERANCE 1e-2

struct Subject {
    const struct Backend *be;
    void *context;
    double (*loss)(void *context); /* one forward pass with what the buffers hold now */
};

/* Fills host or device memory with values in (-scale, scale), a function of the seed. */
void fill_random(const struct Backend *be, float *device, int64_t n_elems, uint64_t seed,
                 double scale);

/* Random weights with no tensor left at zero, so that every path counts. */
void weights_fill_random(struct Weights *weights, uint64_t seed);

/* Fails unless the gradient of the tensor at `device` [n_elems] fits its slopes, and unless the
 * same check refuses it scaled by 3, and without its larger elements: the check is known to see
 * such mistakes. */
void assert_gradient(const struct Subject *subject, const char *name, float *device,
                     const float *device_gradient, int64_t n_elems);

/* assert_gradient for every tensor of the weights.  Returns how many. */
int assert_gradients(const struct Subject *subject, const struct Weights *weights);

#endif
