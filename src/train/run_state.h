/* The state of a run, and how it is read on resume: all trained roles with their moments and EMA,
 * counters, the configuration.  run_save.h writes it; data/checkpoint.h has the file format.
 * Frozen weights are not stored: a resumed run reads them again from where it first got them
 * (init.teacher, init.student). */
#ifndef TMD_RUN_STATE_H
#define TMD_RUN_STATE_H

#include "train/comm.h"
#include "train/run_weights.h"

struct RunState {
    int64_t iteration;           /* of the next step */
    int64_t updates[ROLE_COUNT]; /* AdamW steps done */
    int64_t skipped, skipped_in_row; /* non-finite steps */
};

/* The arrays of a trained role that a checkpoint holds: this rank's share [weights->n_elems] of
 * each, on the device.  Returns how many. */
enum { ROLE_MAX_ARRAYS = 4 };
struct RoleArray {
    const char *kind; /* second part of the group's name: "param", "adam_m", "adam_v", "ema" */
    float *data;
};
int role_arrays(const struct Weights *weights, struct RoleArray out[ROLE_MAX_ARRAYS]);
/* Bytes of all that a checkpoint holds of this rank's shares. */
int64_t run_state_bytes(const struct Networks *nets);

/* Reads a checkpoint of the same stage and model into networks and state.  Any number of ranks,
 * with any parallel.shard, may have written it; every rank reads its own ranges. */
bool run_state_load(struct RunState *state, struct Networks *nets, const char *path,
                    struct Error *err);

/* What `resume` asks for: "none" gives NULL, and refuses a folder that holds checkpoints already;
 * "auto" the newest valid checkpoint of the run, NULL if there is none yet (damaged ones are named on
 * stderr and skipped); else the path itself.  Caller frees.  Collective; the same on all ranks. */
bool run_resume_path(const struct Config *config, struct Comm *comm, char **path, struct Error *err);

#endif
