/* A training run: everything it holds, and the loop.
 *
 * The way of a sample:
 *
 *     dataset, loader         a thread reads it from the disk
 *     batch_upload_start      it travels to the device while the pass before computes
 *     learner_pass            batch_fill: its noises and times
 *                             step_run: forward, losses, backward; sums over ranks begin
 *     learner_sum, _update    summed gradients, new weights
 *
 * Memory is planned by running the same steps on the plan backend, printed, then allocated once. */
#ifndef TMD_TRAINER_H
#define TMD_TRAINER_H

#include "data/loader.h"
#include "train/environment.h"
#include "train/learner.h"
#include "train/metrics.h"
#include "train/preview.h"
#include "train/run_save.h"
#include "train/watchdog.h"

struct Trainer {
    const struct Config *config;
    struct Comm *comm;        /* the caller's, for host memory */
    struct Comm *device_comm; /* for what lies in the backend's memory */
    struct RankGrid grid;
    struct Parallel parallel;
    struct Backend *be;
    struct Dataset *dataset;
    struct Learner learner;
    struct Loader *loader;
    struct Watchdog *watchdog;
    struct Environment environment;
    struct Metrics metrics; /* rank 0 */
    struct Preview preview; /* rank 0 */
    struct RunState state;
    struct RunSaver *saver;
    int64_t first_in_batch, n_local; /* this rank's share of the global batch */
    int64_t memory_bytes;
};

/* Bytes of device memory of this rank, by what they are for. */
struct MemoryPlan {
    int64_t weights[ROLE_COUNT];
    int64_t batch; /* and the tables that depend on its shape */
    int64_t units; /* whole units beside the shares of weights */
    int64_t step;  /* the arena of a step; previews and KD's pairs use the same */
};
int64_t memory_plan_total(const struct MemoryPlan *plan);
/* Runs every kind of step of the stage, a preview and a batch of KD's pairs on the plan backend, as
 * the grid's rank would. */
struct MemoryPlan memory_plan_make(const struct Config *config, struct VideoShape video,
                                   const struct RankGrid *grid, enum Dtype act_dtype);
void memory_plan_print(const struct MemoryPlan *plan, FILE *out);

/* Opens data, plans, allocates, loads weights or resumes.  Collective.  False: some rank had an
 * error, which has been printed; *exit_code is set.  trainer_close is needed in either case. */
bool trainer_open(struct Trainer *trainer, const struct Config *config, struct Comm *comm,
                  int *exit_code);
void trainer_close(struct Trainer *trainer);

/* From the present iteration to the last, or until a signal or too many non-finite steps.  Returns the
 * exit code. */
int trainer_run(struct Trainer *trainer);

#endif
