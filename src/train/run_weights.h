/* The weights that a run, a sampler or an evaluation starts from.  Each rank reads or draws what its
 * share of a role needs (model/weights.h). */
#ifndef TMD_RUN_WEIGHTS_H
#define TMD_RUN_WEIGHTS_H

#include "data/checkpoint.h"
#include "train/networks.h"

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

/* Puts the tensors of a checkpoint into the weights, and refreshes them.  A tensor that only one of the
 * two has is an error, but for `partial`. */
bool run_read_weights(const struct WeightsSource *source, struct Weights *weights, struct Error *err);

/* The initial values of a seed (params.h), refreshed. */
void run_fresh_weights(struct Weights *weights, uint64_t seed);

/* Receives the own range [own.begin, own.end) of tensor `param`. */
typedef void TakeTensor(void *context, struct Weights *weights, int param, const float *host);

/* Reads the own ranges of all tensors of a group, many at a time, and hands one after the other to
 * `take`; errors as above. */
bool run_read_group(struct Ckpt *ckpt, const char *group, struct Weights *weights, bool partial,
                    TakeTensor *take, void *context, struct Error *err);

/* "<out>/checkpoints"; the caller frees it. */
char *run_checkpoint_folder(const struct Config *config);
/* The newest valid checkpoint of a folder, NULL if there is none; damaged ones are named on stderr,
 * unless quiet. */
bool run_newest_checkpoint(const char *folder, bool quiet, char **path, struct Error *err);

#endif
