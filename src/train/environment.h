/* Where a run runs: what every rank finds out about itself, gathered when the run is set up,
 * printed once by rank 0, and written to the run's folder as environment.json.
 *
 * There are warnings about what is rarely meant: ranks whose devices, drivers or libraries differ;
 * more threads than processors; clocks that are more than ENVIRONMENT_MAX_SKEW apart, since people
 * compare the times of logs and files; less room on the disk than the checkpoints need.  Warnings
 * never end a run. */
#ifndef TMD_ENVIRONMENT_H
#define TMD_ENVIRONMENT_H

#include <stdio.h>

#include "kernels/backend.h"
#include "train/checkpoint_room.h"
#include "train/comm.h"

enum { ENVIRONMENT_TEXT = 256, ENVIRONMENT_MAX_PROCESSORS = 1024 };
#define ENVIRONMENT_MAX_SKEW 1.0 /* seconds */

/* What a rank knows of itself; the same bytes travel to the others. */
struct RankFacts {
    char host[ENVIRONMENT_TEXT];
    char device[ENVIRONMENT_TEXT];   /* by the backend: name, memory, driver, libraries */
    char software[ENVIRONMENT_TEXT]; /* the program and libraries, with the versions that run */
    int64_t n_threads;
    uint64_t processors[ENVIRONMENT_MAX_PROCESSORS / 64]; /* of its host that it may use, a bit
                                                             each; none: not known */
};

struct Environment {
    int n_ranks;
    struct RankFacts *ranks;                /* [n_ranks] */
    double *clock_ahead, clock_uncertainty; /* rank 0: as in clock_offsets.h, [n_ranks] */
    struct CheckpointRoom room;             /* rank 0; checkpoint_bytes 0: not looked at yet */
};

/* Asks every rank.  `device_comm` carries gradients, and may be `comm` itself.  Collective. */
void environment_survey(struct Environment *env, struct Comm *comm, const struct Comm *device_comm,
                        const struct Backend *be);
/* Of one that was surveyed, or is zero. */
void environment_free(struct Environment *env);

/* Calls say(context, sentence) for each warning. */
void environment_warn(const struct Environment *env,
                      void (*say)(void *context, const char *sentence), void *context);

/* A block of lines; for rank 0. */
void environment_print(const struct Environment *env, FILE *out);
/* The same for programs, rank by rank; for rank 0. */
bool environment_save(const struct Environment *env, const char *path, struct Error *err);

#endif
