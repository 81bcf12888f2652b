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

/* What `resume` asks for: "none" gives NULL, and refuses a folder that holds checkpoints already;
 * "auto" the newest valid checkpoint of the run, NULL if there is none yet (damaged ones are named on
 * stderr and skipped); else the path itself.  Caller frees. */
bool run_resume_path(const struct Config *config, char **path, struct Error *err);

/* Fresh weights of every present role: from init.teacher and init.student where the stage starts from
 * those, initial values otherwise.  Every rank reads; all but one should be `quiet` (below). */
bool run_init_weights(struct Networks *nets, bool quiet, struct Error *err);

/* Which weights to read. */
struct WeightsSource {
    const char *path;         /* a checkpoint, or a run's folder: its newest valid one */
    const char *const *roles; /* [n_roles]: whose; the first that is there */
    int n_roles;
    bool use_ema; /* their average, if there is one */
    bool partial; /* the flow head's own tensors may be missing, and keep their value */
    bool quiet;   /* damaged checkpoints of a run's folder are skipped without a word on stderr */
};

/* Reads host weights [table->n_elems] into the tensors of `table`.  A tensor that only one of table
 * and checkpoint has is an error, but for `partial`. */
bool run_read_weights(const struct WeightsSource *source, const struct ParamTable *table, float *host,
                      struct Error *err);

#endif
