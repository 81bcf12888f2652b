/* The table of contents as stored in the files of a sharded checkpoint: the group /contents with
 *   names        u8  [n_bytes]       "student/param/head.head.weight", a zero byte after each
 *   shapes       i64 [n_tensors, 8]  dimensions of each tensor, then zeros
 *   pieces       i64 [n_pieces, 4]   tensor (its place in `names`), shard, begin, end
 *   chunk_crc32  u32 [n_chunks]      checksums of the chunks, piece after piece
 * in ascending order of tensor, then begin.  checkpoint_contents.h says what these mean. */
#ifndef TMD_DATA_CHECKPOINT_TABLE_H
#define TMD_DATA_CHECKPOINT_TABLE_H

#include <hdf5.h>

#include "data/checkpoint_contents.h"

/* `contents` is sorted. */
bool ckpt_table_write(hid_t file, const struct CkptContents *contents, struct Error *err);

/* Fills `contents`, which has no tensors yet, believing nothing: afterwards names are sane, shapes
 * have 1 to CKPT_MAX_DIMS dimensions and a product that does not overflow, and the pieces of a
 * tensor ascend without overlap, lie within it and have shards below n_shards. */
bool ckpt_table_read(hid_t file, int64_t n_shards, struct CkptContents *contents,
                     struct Error *err);

/* The pieces of every tensor follow each other from its first element to its last. */
bool ckpt_table_is_whole(const struct CkptContents *contents, struct Error *err);

#endif
