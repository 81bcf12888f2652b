/* Gathers the table of contents of a checkpoint from its file, believing nothing in it. */
#ifndef TMD_DATA_CHECKPOINT_WALK_H
#define TMD_DATA_CHECKPOINT_WALK_H

#include <hdf5.h>

#include "data/checkpoint_contents.h"

/* Fills `contents`, sorted: first with the values, all but the manifest, then, of an unsharded
 * file, with the tensors and the checksums that are stored with them (of others:
 * checkpoint_table.h). Messages name the object; the caller adds the path. */
bool ckpt_walk_values(hid_t file, struct CkptContents *contents, struct Error *err);
bool ckpt_walk_tensors(hid_t file, struct CkptContents *contents, struct Error *err);

/* Is the file, by its values, of this format and of a version that we know, and was it finished? */
bool ckpt_check_format(hid_t file, const struct CkptContents *contents, const char *format,
                       int64_t *version, struct Error *err);
/* Does the stored manifest sum up `contents`? */
bool ckpt_check_manifest(hid_t file, const struct CkptContents *contents, struct Error *err);
/* A value of the format itself; a missing one is an error. */
bool ckpt_own_int(const struct CkptContents *contents, const char *key, int64_t *value,
                  struct Error *err);
bool ckpt_own_text(const struct CkptContents *contents, const char *key, const char **text,
                   struct Error *err);

#endif
