/* Everything lies on the CPU backend; weights and inputs come from fixed seeds. */
#include "network_fixture.h"

#include <stdlib.h>

#include "error.h"
#include "gradient_check.h"

enum { CHANNELS = 3, TEXT_LEN = 5, TEXT_DIM = 6, ARENA_BYTES = 1 << 24 };

/* All but the sizes. */
static const struct ModelConfig model = {.ffn_dim = 20,
                                         .num_layers = NETWORK_LAYERS,
                                         .freq_dim = 8,
                                         .text_dim = TEXT_DIM,
                                         .text_len = TEXT_LEN,
                                         .in_dim = CHANNELS,
                                         .out_dim = CHANNELS,
                                         .patch_size = {1, 2, 2},
                                         .eps = 1e-6};
static const struct NetworkSizes small = {24, 2, {.frames = 2, .height = 4, .width = 6}};

static float *floats(const struct NetworkFixture *f, int64_t n_elems) {
    return f->be->memory_alloc(f->be, n_elems * (int64_t)sizeof(float));
}

static float *random_floats(const struct NetworkFixture *f, int64_t n_elems, uint64_t seed) {
    float *device = floats(f, n_elems);
    fill_random(f->be, device, n_elems, seed, 1.0);
    return device;
}

static void make_weights(struct NetworkFixture *f, const struct StudentConfig *student) {
    if (student) {
        f->student_config = *student;
        student_params(&f->table, &f->model, student);
    } else {
        wan_params(&f->table, &f->model);
    }
    weights_alloc(&f->weights, f->be, &f->table, WEIGHTS_TRAINED);
    weights_fill_random(&f->weights, 3);
    f->frozen = weights_frozen_view(&f->weights);
}

static void make_inputs(struct NetworkFixture *f, struct VideoShape video) {
    f->latent_elems = NETWORK_BATCH * video_elems(video, CHANNELS);
    f->tap_elems = NETWORK_BATCH * video_elems(video, f->model.dim / 4);
    float **latents[] = {&f->x, &f->x1, &f->y1, &f->dout, &f->out, &f->dx};
    for (uint64_t i = 0; i < 6; i++) *latents[i] = random_floats(f, f->latent_elems, 20 + i);
    for (uint64_t k = 0; k < NETWORK_TAPS; k++) {
        f->taps[k] = random_floats(f, f->tap_elems, 30 + k);
        f->dtaps[k] = random_floats(f, f->tap_elems, 40 + k);
    }
    f->text = random_floats(f, NETWORK_BATCH * TEXT_LEN * TEXT_DIM, 50);
    f->t[0] = 0.31;
    f->t[1] = 0.87;
    /* the last block is above the last tap */
    f->tap_blocks = (struct IntList){.items = {0, 1}, .n = NETWORK_TAPS};
    f->in = (struct WanInputs){
        .batch = NETWORK_BATCH, .x = f->x, .host_t = f->t, .text = (const Act *)f->text};
}

struct NetworkFixture *network_create(const struct StudentConfig *student) {
    return network_create_sized(student, &small);
}

struct NetworkFixture *network_create_sized(const struct StudentConfig *student,
                                            const struct NetworkSizes *sizes) {
    struct NetworkFixture *f = xcalloc(sizeof *f);
    f->be = backend_cpu_create();
    f->model = model;
    f->model.dim = sizes->dim;
    f->model.num_heads = sizes->num_heads;
    make_weights(f, student);
    make_inputs(f, sizes->video);
    wan_geometry_init(&f->geometry, f->be, &f->model, sizes->video);
    arena_init(&f->arena, f->be, ARENA_BYTES);
    f->wan_tape = xcalloc(sizeof *f->wan_tape);
    f->generator_tape = xcalloc(sizeof *f->generator_tape);
    return f;
}

void network_destroy(struct NetworkFixture *f) {
    float *buffers[] = {f->x, f->x1, f->y1, f->dout, f->out, f->dx, f->text};
    for (int i = 0; i < 7; i++) f->be->memory_free(f->be, buffers[i]);
    for (int k = 0; k < NETWORK_TAPS; k++) {
        f->be->memory_free(f->be, f->taps[k]);
        f->be->memory_free(f->be, f->dtaps[k]);
    }
    free(f->wan_tape);
    free(f->generator_tape);
    arena_free(&f->arena);
    wan_geometry_free(&f->geometry, f->be);
    weights_free(&f->weights);
    params_free(&f->table);
    f->be->destroy(f->be);
    free(f);
}

struct Wan network_wan(const struct NetworkFixture *f, const struct Weights *weights) {
    return (struct Wan){.config = &f->model, .weights = weights, .geometry = &f->geometry};
}

struct Student network_student(const struct NetworkFixture *f) {
    return (struct Student){.wan = network_wan(f, &f->weights), .config = &f->student_config};
}

struct Taps network_taps(const struct NetworkFixture *f, float *const videos[NETWORK_TAPS]) {
    struct Taps taps = {.blocks = &f->tap_blocks};
    for (int k = 0; k < NETWORK_TAPS; k++) taps.videos[k] = (Act *)videos[k];
    return taps;
}

double network_product(const struct NetworkFixture *f, const float *a, const float *b,
                       int64_t n_elems) {
    size_t n_bytes = (size_t)n_elems * sizeof(float);
    float *host[2] = {xmalloc(n_bytes), xmalloc(n_bytes)};
    double sum = 0.0;
    f->be->download(f->be, host[0], a, (int64_t)n_bytes);
    f->be->download(f->be, host[1], b, (int64_t)n_bytes);
    for (int64_t i = 0; i < n_elems; i++) sum += (double)host[0][i] * (double)host[1][i];
    free(host[0]);
    free(host[1]);
    return sum;
}

float *network_gradients(const struct NetworkFixture *f) {
    size_t n_bytes = (size_t)f->table.n_elems * sizeof(float);
    float *host = xmalloc(n_bytes);
    f->be->download(f->be, host, f->weights.grad, (int64_t)n_bytes);
    return host;
}

void network_zero_gradients(const struct NetworkFixture *f) {
    f->be->zero(f->be, f->weights.grad, f->table.n_elems * (int64_t)sizeof(float));
}
