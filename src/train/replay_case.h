/* The files of a replay case, and its inputs as a step wants them. */
#ifndef TMD_REPLAY_CASE_H
#define TMD_REPLAY_CASE_H

#include <limits.h>

#include "data/safetensors.h"
#include "train/step_run.h"

struct ReplayCase {
    const char *folder;
    struct Config config;
    struct Safetensors *inputs;
    char inputs_path[PATH_MAX];
    int64_t batch;
    struct VideoShape video;
    /* Device memory of the inputs, freed with the case's device part. */
    const struct Backend *be;
    void *device[16];
    int n_device;
};

/* Reads case.yaml, which is left to be checked, and the list of inputs. */
bool replay_case_open(struct ReplayCase *rc, const char *folder, struct Error *err);
void replay_case_close(struct ReplayCase *rc);

/* Batch and latent shape from the video input `name`. */
bool replay_case_shape(struct ReplayCase *rc, const char *name, struct Error *err);

/* The input `name` on the host, which the caller frees.  `shape` is what it must have, -1 any extent
 * but 0, and becomes what it has.  Here and below an input that is missing, of another shape or
 * kind of numbers, or not finite is an error. */
bool replay_case_read(const struct ReplayCase *rc, const char *name, int n_dims, int64_t *shape,
                      float **out, struct Error *err);

/* Upload to `rc->be`; freed by replay_case_release. */
bool replay_case_video(struct ReplayCase *rc, const char *name, const float **out,
                       struct Error *err);
/* [n, B, C, F, H, W]: n batches of videos. */
bool replay_case_videos(struct ReplayCase *rc, const char *name, int64_t n, const float **out,
                        struct Error *err);
/* A video of other than in_dim channels. */
bool replay_case_channels(struct ReplayCase *rc, const char *name, int64_t channels,
                          const float **out, struct Error *err);
bool replay_case_text(struct ReplayCase *rc, const char *name, const Act **out, struct Error *err);
bool replay_case_times(struct ReplayCase *rc, const char *name, double *out, struct Error *err);
bool replay_case_flags(struct ReplayCase *rc, const char *name, bool *out, struct Error *err);
void replay_case_release(struct ReplayCase *rc);

/* Everything that a step of this kind reads. */
bool replay_case_step_inputs(struct ReplayCase *rc, enum StepKind kind, struct StepInputs *in,
                             struct Error *err);

#endif
