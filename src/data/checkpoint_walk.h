/* Gathers the table of contents of a checkpoint from its file, believing nothing in it. */
#ifndef TMD_DATA_CHECKPOINT_WALK_H
#define TMD_DATA_CHECKPOINT_WALK_H

#include <hdf5.h>

#include "data/checkpoint_contents.h"

/* Fills `contents`, sorted: first with the values, all but the manifest, then with the tensors and
 * the checksums that are stored with them.  Messages name the object; the
 * caller adds the path. */
bool ckpt_walk_values(hid_t file, struct CkptContents *contents, struct Error *err);
bool ckpt_walk_tensors(hid_t file, struct CkptContents *contents, struct Error *err);

#endif
