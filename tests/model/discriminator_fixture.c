/* The cases, and buffers with the same random values for the fast and the naive discriminator. */
#include "discriminator_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "error.h"
#include "philox.h"

#define FEATURES                                                                                   \
    { .items = {1, 2}, .n = NAIVE_HEADS }

/* Convolutions: widths below 4, up to 32 and beyond (36: 18 groups; 34: 17), odd latents, a single
 * frame, a last grid of one position and of several.  Attention: one head, heads of 48 and of 64,
 * and more tokens than fit one block of the attention. */
const struct DiscriminatorCase discriminator_cases[] = {
    {"conv3d",
     {.dim = 36, .patch_size = {1, 2, 2}},
     {DISCRIMINATOR_CONV3D, FEATURES, {8, 36, 16}, 7},
     {3, 13, 12}},
    {"separable",
     {.dim = 36, .patch_size = {1, 2, 2}},
     {DISCRIMINATOR_SEPARABLE, FEATURES, {8, 36, 16}, 7},
     {3, 13, 12}},
    {"separable, a single frame",
     {.dim = 20, .patch_size = {1, 2, 2}},
     {DISCRIMINATOR_SEPARABLE, FEATURES, {3, 34, 8}, 5},
     {1, 10, 7}},
    {"separable, a last grid of two",
     {.dim = 12, .patch_size = {1, 1, 2}},
     {DISCRIMINATOR_SEPARABLE, FEATURES, {4, 5, 6}, 4},
     {9, 10, 8}},
    {"attention",
     {.dim = 36, .patch_size = {1, 2, 2}},
     {DISCRIMINATOR_ATTENTION, FEATURES, {1, 1, 16}, 7},
     {3, 8, 6}},
    {"attention, heads of 48",
     {.dim = 40, .patch_size = {2, 2, 1}},
     {DISCRIMINATOR_ATTENTION, FEATURES, {1, 1, 96}, 3},
     {4, 6, 5}},
    {"attention, heads of 64",
     {.dim = 21, .patch_size = {1, 1, 1}},
     {DISCRIMINATOR_ATTENTION, FEATURES, {1, 1, 128}, 5},
     {1, 3, 5}},
    {"attention, 330 tokens",
     {.dim = 8, .patch_size = {1, 2, 2}},
     {DISCRIMINATOR_ATTENTION, FEATURES, {1, 1, 6}, 4},
     {3, 20, 22}},
};
const int n_discriminator_cases = sizeof discriminator_cases / sizeof *discriminator_cases;

double fixture_uniform(uint64_t seed, int64_t i) {
    return 2.0 * philox_uniform(philox(seed, (uint32_t)i, 0, 0, 0).word[0]) - 1.0;
}

static float *buffer_of(const struct DiscriminatorFixture *f, int64_t n_elems) {
    return f->be->memory_alloc(f->be, n_elems * (int64_t)sizeof(float));
}

static void fill_params(struct DiscriminatorFixture *f) {
    float *host = xcalloc((unsigned long)f->table.n_elems * sizeof *host);
    params_initialise(&f->table, 7, host);
    for (int p = 0; p < f->table.n_params; p++) {
        const struct ParamDesc *desc = &f->table.params[p];
        for (int64_t i = 0; i < desc->n_elems && strstr(desc->name, "norm"); i++)
            host[desc->offset + i] += 0.5f * (float)fixture_uniform(100 + (uint64_t)p, i);
    }
    f->naive.params = xcalloc((unsigned long)f->table.n_elems * sizeof(double));
    for (int64_t i = 0; i < f->table.n_elems; i++) f->naive.params[i] = (double)host[i];
    weights_upload(&f->weights, host);
    free(host);
}

static void fill_taps(struct DiscriminatorFixture *f) {
    for (int k = 0; k < NAIVE_HEADS; k++) {
        f->taps[k] = buffer_of(f, f->tap_elems);
        f->dtaps[k] = buffer_of(f, f->tap_elems);
        f->naive.taps[k] = xcalloc((unsigned long)f->tap_elems * sizeof(double));
        for (int64_t i = 0; i < f->tap_elems; i++) {
            f->taps[k][i] = (float)fixture_uniform(10 + (uint64_t)k, i);
            f->dtaps[k][i] = NAN; /* must be overwritten */
            f->naive.taps[k][i] = (double)f->taps[k][i];
        }
    }
}

struct DiscriminatorFixture *discriminator_fixture_create(const struct DiscriminatorCase *of) {
    struct DiscriminatorFixture *f = xcalloc(sizeof *f);
    struct VideoShape v = of->latents;
    f->of = of;
    f->be = backend_cpu_create();
    discriminator_params(&f->table, &of->model, &of->config);
    weights_alloc(&f->weights, f->be, &f->table, WEIGHTS_TRAINED);
    f->d = (struct Discriminator){&f->weights, of->model, of->config};
    arena_init(&f->arena, f->be, 1 << 21);
    f->naive = (struct NaiveDiscriminator){.model = of->model,
                                           .config = of->config,
                                           .latents = v,
                                           .batch = FIXTURE_BATCH,
                                           .table = &f->table};
    f->tap_elems =
        FIXTURE_BATCH * discriminator_tap_channels(&of->model) * v.frames * v.height * v.width;
    f->logits = buffer_of(f, FIXTURE_LOGITS);
    f->dlogits = buffer_of(f, FIXTURE_LOGITS);
    for (int i = 0; i < FIXTURE_LOGITS; i++) {
        f->logits[i] = NAN; /* must be overwritten */
        f->dlogits[i] = (float)fixture_uniform(2, i);
    }
    fill_params(f);
    fill_taps(f);
    discriminator_fixture_forward(f);
    return f;
}

void discriminator_fixture_destroy(struct DiscriminatorFixture *f) {
    for (int k = 0; k < NAIVE_HEADS; k++) {
        f->be->memory_free(f->be, f->taps[k]);
        f->be->memory_free(f->be, f->dtaps[k]);
        free(f->naive.taps[k]);
    }
    f->be->memory_free(f->be, f->logits);
    f->be->memory_free(f->be, f->dlogits);
    free(f->naive.params);
    arena_free(&f->arena);
    weights_free(&f->weights);
    params_free(&f->table);
    f->be->destroy(f->be);
    free(f);
}

void discriminator_fixture_forward(struct DiscriminatorFixture *f) {
    const Act *taps[NAIVE_HEADS] = {(Act *)f->taps[0], (Act *)f->taps[1]};
    discriminator_forward(&f->d, taps, FIXTURE_BATCH, f->of->latents, f->logits, &f->arena,
                          &f->tape);
}

void discriminator_fixture_backward(struct DiscriminatorFixture *f, bool want_taps, bool last) {
    Act *dtaps[NAIVE_HEADS] = {(Act *)f->dtaps[0], (Act *)f->dtaps[1]};
    int64_t used = f->arena.used;
    discriminator_backward(&f->d, f->dlogits, &f->tape, want_taps ? dtaps : NULL, last, &f->arena);
    assert_int_equal(f->arena.used, used);
}
