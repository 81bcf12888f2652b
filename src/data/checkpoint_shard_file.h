/* One shard's file for reading: where it is, and whether it is the one that is wanted. */
#ifndef TMD_DATA_CHECKPOINT_SHARD_FILE_H
#define TMD_DATA_CHECKPOINT_SHARD_FILE_H

#include <hdf5.h>

#include "data/checkpoint_contents.h"
#include "data/checkpoint_shards.h"

/* "<folder>/step-00001000.shards-0123456789abcdef/rank-003-of-008.h5"; the caller frees it. */
char *ckpt_shard_path(const struct CkptSave *save, int shard);
/* The same from the master's folder on. */
char *ckpt_shard_relative_path(const struct CkptSave *save, int shard);

/* Opens shard number `shard` and checks by its values that it belongs to this save.  `contents`, if
 * not NULL, becomes what is in it, checked against its manifest; free it also on failure. */
bool ckpt_shard_open_read(const struct CkptSave *save, int shard, hid_t *file,
                          struct CkptContents *contents, struct Error *err);

#endif
