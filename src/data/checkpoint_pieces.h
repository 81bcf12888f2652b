/* Finds tensors of a sharded checkpoint in the files of its shards.
 *
 * A file is opened when it is needed first; all that is believed of it is that the chunks of a
 * piece have the checksums that the master's table has. */
#ifndef TMD_DATA_CHECKPOINT_PIECES_H
#define TMD_DATA_CHECKPOINT_PIECES_H

#include "data/checkpoint_contents.h"
#include "data/checkpoint_read.h"
#include "data/checkpoint_shards.h"

struct CkptPieces;

/* The strings of `save` must last as long as this. */
struct CkptPieces *ckpt_pieces_open(const struct CkptSave *save);
void ckpt_pieces_close(struct CkptPieces *pieces);

/* Adds a range of a tensor, from all pieces that it touches, to what is read; of a tensor of
 * `contents`, which ckpt_table_is_whole.  When too many files would be open, what was added before
 * is read at once. */
bool ckpt_pieces_add(struct CkptPieces *pieces, const struct CkptContents *contents,
                     const struct CkptTensorInfo *tensor, const struct CkptRange *range,
                     struct CkptReading *reading, struct Error *err);

/* Opens every shard once, also those from which no tensor comes; of n_parts parts of them, one. */
bool ckpt_pieces_check(struct CkptPieces *pieces, int part, int n_parts, struct Error *err);

#endif
