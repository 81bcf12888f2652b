/* A run without files: a learner of tiny networks on random data, as the trainer drives it. */
#ifndef TMD_TESTS_LEARNER_FIXTURE_H
#define TMD_TESTS_LEARNER_FIXTURE_H

#include "train/trainer.h"

enum { RUN_BATCH = 2 };

struct Run {
    struct Config config;
    struct Backend *be;
    struct Comm *alone;
    struct Parallel parallel;
    struct Learner learner;
    float *host_video, *host_text;
    int64_t samples[RUN_BATCH];
};

/* TMD_TEST_ACT=f32 or bf16: a CUDA device with such an Act; unset: the CPU. */
struct Backend *run_open_backend(void);

/* On `be`, which the run destroys; overrides come on top of the tiny sizes. */
void run_init(struct Run *r, struct Backend *be, const char *const *overrides, int n_overrides);
void run_free(struct Run *r);

/* What the trainer does of an iteration, loading and reporting aside.  scalars [STEP_MAX_SCALARS];
 * returns how many. */
int run_iterate(struct Run *r, enum StepKind kind, int64_t iteration, struct StepScalar *scalars);

#endif
