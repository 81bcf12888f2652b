/* A tiny discriminator of each type, and a naive one with the same numbers. */
#ifndef TMD_DISCRIMINATOR_FIXTURE_H
#define TMD_DISCRIMINATOR_FIXTURE_H

#include "model/discriminator.h"
#include "naive_discriminator.h"

enum { FIXTURE_BATCH = 2, FIXTURE_LOGITS = FIXTURE_BATCH * NAIVE_HEADS };

struct DiscriminatorCase {
    const char *name;
    struct ModelConfig model;
    struct DiscriminatorConfig config;
    struct VideoShape latents;
};
extern const struct DiscriminatorCase discriminator_cases[];
extern const int n_discriminator_cases;

struct DiscriminatorFixture {
    const struct DiscriminatorCase *of;
    struct Backend *be;
    struct ParamTable table;
    struct Weights weights;
    struct Discriminator d;
    struct Arena arena;
    struct DiscriminatorTape tape;
    struct NaiveDiscriminator naive;
    int64_t tap_elems;
    float *taps[NAIVE_HEADS], *dtaps[NAIVE_HEADS]; /* device, tap_elems each; dtaps begin as NaN */
    float *logits, *dlogits;                       /* [B, K] */
};

/* Fresh parameters, the norms' moved away from 1 and 0; runs forward. */
struct DiscriminatorFixture *discriminator_fixture_create(const struct DiscriminatorCase *of);
void discriminator_fixture_destroy(struct DiscriminatorFixture *f);

void discriminator_fixture_forward(struct DiscriminatorFixture *f);
/* Fails if the arena is not as it was. */
void discriminator_fixture_backward(struct DiscriminatorFixture *f, bool want_taps, bool last);

/* In (-1, 1), a function of both. */
double fixture_uniform(uint64_t seed, int64_t i);

#endif
