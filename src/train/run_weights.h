/* The weights that a run, a sampler or an evaluation starts from.  Each rank reads or draws what its
 * share of a role needs (model/weights.h). */
#ifndef TMD_RUN_WEIGHTS_H
#define TMD_RUN_WEIGHTS_H

#include "data/checkpoint.h"
#include "train/comm.h"
#include "train/networks.h"

/* Fresh weights of every present role: from init.teacher and init.student where the stage starts from
 * those, initial values otherwise.  Collective over `comm`; fails on all its ranks or on none. */
bool run_init_weights(struct Networks *nets, struct Comm *comm, struct Error *err);

/* Which weights to read. */
struct WeightsSource {
    const char *path;         /* a checkpoint, or a run's folder: its newest valid one */
    const char *const *roles; /* [n_roles]: whose; the first that is there */
    int n_roles;
    bool use_ema; /* their average, if there is one */
    bool partial; /* the flow head's own tensors may be missing, and keep their value */
};

/* Puts the tensors of a checkpoint into the weights, and refreshes them.  A tensor that only one of the
 * two has is an error, except as `partial` allows.  Collective, fails on all ranks or on none. */
bool run_read_weights(const struct WeightsSource *source, struct Weights *weights, struct Comm *comm,
                      struct Error *err);

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
/* The newest valid checkpoint of a folder, NULL if there is none, the same on all ranks of `comm`, each
 * of which verifies a part of it.  Damaged ones are named on stderr, by rank 0.  Collective. */
bool run_newest_checkpoint(const char *folder, struct Comm *comm, char **path, struct Error *err);

#endif
