/* Saving a run while it goes on, in three parts:
 *
 *  1. This rank's weights, moments and averages are copied to host memory.  A device copies them
 *     while the passes of the next iteration run; only the next update waits for the end
 *     (learner_update), because it changes what is being copied.
 *  2. A thread writes the copy.  Without shards, rank 0 writes the one file; otherwise every rank
 *     of the first replica writes its shard.
 *  3. When all ranks know that all files are on the disk, rank 0 makes the shards one checkpoint
 *     (data/checkpoint_shards.h) and removes old checkpoints.  Until then the previous one is the
 *     newest.
 *
 *     run_saver_begin      collective; no save may be under way
 *     run_saver_busy       whether this rank still writes
 *     run_saver_finish     collective: waits, and completes the save; nothing to do if there is none
 */
#ifndef TMD_RUN_SAVE_H
#define TMD_RUN_SAVE_H

#include "train/parallel.h"
#include "train/run_state.h"

struct RunSaver;

/* Takes host memory for the copies, pinned where the machine gives it; says on stderr where not.
 * `ranks`: for agreements, in host memory.  All outlive the saver. */
bool run_saver_open(struct RunSaver **saver, const struct Networks *nets, struct Comm *ranks,
                    const struct RankGrid *grid, struct Error *err);
/* Waits for what is being written, which is then lost unless it was finished.  Harmless on NULL. */
void run_saver_close(struct RunSaver *saver);

void run_saver_begin(struct RunSaver *saver, const struct RunState *state);
/* Whether run_saver_finish would have to wait for this rank. */
bool run_saver_busy(const struct RunSaver *saver);
/* false: the save failed on some rank, whose error has been printed; nothing is left of it. */
bool run_saver_finish(struct RunSaver *saver, int *exit_code);

#endif
