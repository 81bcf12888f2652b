/* The folder of checkpoints of a run: `step-00001000.h5`, named by iteration, and of sharded ones
 * the folder of their shards beside it. */
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

/* Removes the shards of one save, and nothing else that may lie with them, unless a checkpoint has
 * them, or one that cannot be opened may have. */
void ckpt_shards_remove(const char *folder, int64_t iteration, int64_t save_id);

/* How many checkpoints the folder holds, intact or not; 0 if there is no such folder. */
bool ckpt_folder_count(const char *folder, int64_t *n, struct Error *err);

/* Is a part (ckpt_verify_part) of the checkpoint intact?  If not, `reason` says why. */
bool ckpt_is_intact(const char *path, int part, int n_parts, struct Error *reason);

/* Whoever says which checkpoints are intact. */
typedef bool CkptJudge(void *context, const char *path);

/* The intact checkpoint of the highest iteration: `*path` (the caller frees it), or NULL if the
 * folder does not exist or holds no checkpoint.  `judge` is asked, from the newest on.  If all are
 * damaged, that is an error: a run must not begin anew over its own ruins without being told. */
bool ckpt_newest_valid(const char *folder, char **path, CkptJudge *judge, void *context,
                       struct Error *err);

/* Removes checkpoints with their shards, but not: the keep_last (>= 1) newest, those whose
 * iteration is a multiple of keep_every (0: none), and the one at `intact`, which the caller knows
 * to be so. */
bool ckpt_rotate(const char *folder, int64_t keep_last, int64_t keep_every, const char *intact,
                 struct Error *err);

#endif
