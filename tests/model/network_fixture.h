/* A tiny Wan DiT or student with random weights and inputs, and one evaluation of it. */
#ifndef TMD_TESTS_NETWORK_FIXTURE_H
#define TMD_TESTS_NETWORK_FIXTURE_H

#include "model/generator.h"

enum { NETWORK_BATCH = 2, NETWORK_LAYERS = 3, NETWORK_TAPS = 2 };

struct NetworkFixture {
    struct Backend *be;
    struct ModelConfig model;
    struct StudentConfig student_config;
    struct ParamTable table;
    struct Weights weights, frozen; /* the same, without gradients */
    struct WanGeometry geometry;
    struct Arena arena;
    struct WanTape *wan_tape;
    struct GeneratorTape *generator_tape;
    struct WanInputs in;
    float *x, *x1, *y1, *text, *dout, *out, *dx; /* device; dout, out, dx are like x */
    struct IntList tap_blocks;
    float *taps[NETWORK_TAPS], *dtaps[NETWORK_TAPS]; /* device, tap_elems each */
    int64_t latent_elems, tap_elems;                 /* of the whole batch */
    double t[NETWORK_BATCH];
};

struct NetworkSizes {
    int64_t dim, num_heads;
    struct VideoShape video; /* patches are 1 x 2 x 2 */
};

/* A student, or (student NULL) a DiT; weights and inputs are the same each time. */
struct NetworkFixture *network_create(const struct StudentConfig *student);
/* The same of other sizes than the smallest. */
struct NetworkFixture *network_create_sized(const struct StudentConfig *student,
                                            const struct NetworkSizes *sizes);
void network_destroy(struct NetworkFixture *f);

struct Wan network_wan(const struct NetworkFixture *f, const struct Weights *weights);
struct Student network_student(const struct NetworkFixture *f);
/* The taps as the model's functions take them. */
struct Taps network_taps(const struct NetworkFixture *f, float *const videos[NETWORK_TAPS]);

/* <a, b> in double, of device buffers. */
double network_product(const struct NetworkFixture *f, const float *a, const float *b,
                       int64_t n_elems);
/* All gradients, on the host; the caller frees them. */
float *network_gradients(const struct NetworkFixture *f);
void network_zero_gradients(const struct NetworkFixture *f);

#endif
