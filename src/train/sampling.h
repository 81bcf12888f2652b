/* Samples from a network, from host memory to host memory: the student by its own sampler and time
 * grid, the teacher by integrating its guided flow as the configuration's section `sampler:` says.
 *
 * Sample i starts from noise x1 that is a function of (seed, i) and the shape of the video only,
 * and a student's outer step k takes its inner noise from (seed, k, i).  So all samplers begin at
 * the same noise, and a sample does not depend on the others of its batch. */
#ifndef TMD_SAMPLING_H
#define TMD_SAMPLING_H

#include "model/sampler.h"
#include "train/networks.h"

struct Sampler {
    const struct Networks *nets;
    enum Role role;                /* ROLE_TEACHER or ROLE_STUDENT, present in `nets` */
    bool use_ema;                  /* the averaged weights, if the networks hold some */
    struct TeacherSampler teacher; /* read for ROLE_TEACHER */
    uint64_t seed;
    bool together; /* true: with the ranks that share this one's tokens, all of which call it, too;
                      false: this rank computes all tokens alone */
};

/* Steps, shift, guidance and seed from nets->config's section `sampler:`. */
struct Sampler sampler_init(const struct Networks *nets, enum Role role, bool use_ema);

/* Evaluations of the teacher that one sample costs.  Guidance costs two a step; a student's flow
 * head counts by its share of the blocks (effective_nfe). */
double sampler_nfe(const struct Sampler *sampler);

/* Samples first .. first + n - 1; everything is host memory. */
struct SampleSet {
    int64_t first, n;
    const float *text;     /* [n, text_len, text_dim] */
    const float *neg_text; /* [text_len, text_dim], read when the teacher is guided */
    float *clips;          /* out: [n, C, F, H, W] */
};

/* Fills set.clips, `batch` (<= STUDENT_MAX_BATCH) samples at a time.  Takes all device memory from
 * the arena and gives it back. */
void sampler_run(const struct Sampler *sampler, struct SampleSet set, int64_t batch,
                 struct Arena *arena);

/* Bytes of arena that sampler_run needs.  The sampler's networks must lie on the plan backend. */
int64_t sampler_arena_bytes(const struct Sampler *planned, int64_t batch);

#endif
