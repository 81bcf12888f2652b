/* The state of a run and its checkpoints: all trained roles with their moments and EMA, counters, the
 * configuration (checkpoint.h has the file format). Frozen weights are not stored; they come again
 * from the configuration's init paths. */
#ifndef TMD_RUN_STATE_H
#define TMD_RUN_STATE_H

#include "train/comm.h"
#include "train/networks.h"

struct RunState {
    int64_t iteration;           /* of the next step */
    int64_t updates[ROLE_COUNT]; /* AdamW steps done */
    int64_t skipped, skipped_in_row; /* non-finite steps */
};

/* "<out>/checkpoints"; the caller frees it. */
char *run_checkpoint_folder(const struct Config *config);

/* Writes the checkpoint of state->iteration and removes old ones.  Call on rank 0. */
bool run_state_save(const struct RunState *state, const struct Networks *nets, struct Error *err);

/* Reads a checkpoint of the same stage and sizes into networks and state.  Every rank reads. */
bool run_state_load(struct RunState *state, struct Networks *nets, const char *path,
                    struct Error *err);

/* What `resume` asks for: "none" gives NULL, and refuses a folder that holds checkpoints already; "auto" the newest valid checkpoint of the run, NULL if there
 * is none yet (damaged ones are named on stderr and skipped); else the path itself.  Caller frees. */
bool run_resume_path(const struct Config *config, bool verbose, char **path, struct Error *err);

/* Fresh weights of every present role: from init.teacher and init.student where the stage starts from
 * those, initial values otherwise. */
bool run_init_weights(struct Networks *nets, struct Error *err);

/* Host weights [table->n_elems] of the networks in a checkpoint: reads the group of the first of `roles`
 * that is there (its EMA if use_ema and there is one) into the tensors of `table`.  If `partial`, the
 * flow head's own tensors may be missing and keep their value; any other tensor that only one of table
 * and checkpoint has is an error.  `path` may be a run's folder: its newest valid checkpoint. */
bool run_read_weights(const char *path, const char *const *roles, int n_roles, bool use_ema,
                      bool partial, const struct ParamTable *table, float *host, struct Error *err);

#endif
