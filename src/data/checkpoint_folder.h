/* The folder of a run's checkpoints: `step-00001000.h5`, named by iteration.  A sharded one has a
 * folder of shards next to it (checkpoint_shards.h). */
#ifndef TMD_DATA_CHECKPOINT_FOLDER_H
#define TMD_DATA_CHECKPOINT_FOLDER_H

#include "data/checkpoint.h"

/* With the 0 at its end; longer ones cannot be opened. */
enum { CKPT_MAX_PATH = 4096 };

/* "<folder>/step-00001000.h5", with more digits where needed; the caller frees it. */
char *ckpt_step_path(const char *folder, int64_t iteration);

/* "step-00001000.shards-0123456789abcdef", the id in hexadecimal; the caller frees it. */
char *ckpt_shards_name(int64_t iteration, int64_t save_id);

/* Removes what crashed writers left: partial files, and folders of shards that are neither of the
 * save `live_id` (-1: of none) nor of a checkpoint (ckpt_shards_remove).  What cannot be removed
 * stays. */
void ckpt_folder_sweep(const char *folder, int64_t live_id);

/* Removes the shards of one save, and no other file in their folder.  Does nothing if they belong
 * to a checkpoint, or may belong to one that cannot be opened. */
void ckpt_shards_remove(const char *folder, int64_t iteration, int64_t save_id);

/* How many checkpoints the folder holds, intact or not; 0 if there is no such folder. */
bool ckpt_folder_count(const char *folder, int64_t *n, struct Error *err);

/* Is a part (ckpt_verify_part) of the checkpoint intact?  If not, `reason` says why. */
bool ckpt_is_intact(const char *path, int part, int n_parts, struct Error *reason);

/* Says whether a checkpoint is intact. */
typedef bool CkptJudge(void *context, const char *path);

/* The intact checkpoint of the highest iteration: `*path` (the caller frees it), or NULL if the
 * folder does not exist or holds no checkpoint.  `judge` is asked about one after another, the
 * newest first.  If all are damaged, that is an error: a run must not silently begin anew over
 * them. */
bool ckpt_newest_valid(const char *folder, char **path, CkptJudge *judge, void *context,
                       struct Error *err);

/* Removes checkpoints and their shards, except the keep_last (>= 1) newest, those whose iteration
 * is a multiple of keep_every (0: none), and the one at `intact`, which the caller knows to be
 * intact. */
bool ckpt_rotate(const char *folder, int64_t keep_last, int64_t keep_every, const char *intact,
                 struct Error *err);

#endif
