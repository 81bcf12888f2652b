/* A sampler made from a run's folder or a checkpoint: configuration, networks, weights, memory. */
#ifndef TMD_SAMPLING_LOAD_H
#define TMD_SAMPLING_LOAD_H

#include "train/sampling.h"

/* The configuration that belongs to weights: <path>/config.yaml of a run's folder, else the one
 * that the checkpoint `path` carries.  `config` has been initialised. */
bool sampling_config_load(struct Config *config, const char *path, struct Error *err);

/* Checks what sampling from `role` depends on, and nothing that only training does. */
bool sampling_config_check(struct Config *config, enum Role role, struct Error *err);

/* Whose weights, and where they lie. */
struct SampledModel {
    const char *path; /* a run's folder, meaning its newest valid checkpoint, or a checkpoint */
    enum Role role;
    bool untrained; /* the student as training starts it: `path` holds the teacher */
    bool use_ema;   /* the averaged weights, if the checkpoint has them */
};

struct LoadedSampler {
    struct Backend *be;
    struct Networks nets;
    struct Arena arena;
    struct Sampler sampler;
    int64_t batch;
};

/* `config`, checked, must outlive it.  Samples come in batches of at most `batch`.  After an error
 * there is nothing to close. */
bool loaded_sampler_open(struct LoadedSampler *loaded, const struct Config *config,
                         struct SampledModel model, struct VideoShape video, int64_t batch,
                         struct Error *err);
void loaded_sampler_close(struct LoadedSampler *loaded);

/* sampler_run in its own memory. */
void loaded_sampler_run(struct LoadedSampler *loaded, struct SampleSet set);

#endif
