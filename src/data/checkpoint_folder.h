/* The folder of checkpoints of a run: `step-00001000.h5`, named by iteration. */
#ifndef TMD_DATA_CHECKPOINT_FOLDER_H
#define TMD_DATA_CHECKPOINT_FOLDER_H

#include "data/checkpoint.h"

/* "<folder>/step-00001000.h5", with more digits where needed; the caller frees it. */
char *ckpt_step_path(const char *folder, int64_t iteration);

/* Whether a file of this name (without its folder) is what a crashed writer may have left. */
bool ckpt_is_partial_name(const char *name);

/* How many checkpoints the folder holds, intact or not; 0 if there is no such folder. */
bool ckpt_folder_count(const char *folder, int64_t *n, struct Error *err);

/* The intact checkpoint of the highest iteration: `*path` (the caller frees it), or NULL if the
 * folder does not exist or holds no checkpoint.  Candidates are read completely.  Each damaged one
 * is handed to `skipped` (NULL: nobody listens) with its reason.  If all are damaged, that is an
 * error: a run must not begin anew over its own ruins without being told. */
bool ckpt_newest_valid(const char *folder, char **path,
                       void (*skipped)(void *context, const char *path, const char *reason),
                       void *context, struct Error *err);

/* Removes checkpoints, but not: the keep_last (>= 1) newest, those whose iteration is a multiple of
 * keep_every (0: none), and protected_path, which the caller knows to be intact (NULL: the newest
 * intact one is searched, which reads it all). */
bool ckpt_rotate(const char *folder, int64_t keep_last, int64_t keep_every,
                 const char *protected_path, struct Error *err);

#endif
