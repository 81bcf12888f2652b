/* Sharded checkpoints: every rank writes a part of every tensor, at the same time, and one small
 * file, the master, makes one checkpoint of them.
 *
 *   step-00001000.h5                                          the master: what readers open
 *   step-00001000.shards-0123456789abcdef/rank-003-of-008.h5  a shard
 *
 * A shard (format "tmd.checkpoint.shard", version 2)
 *   /ROLE/KIND/NAME     float32 [n]: the elements begin ... end - 1 of the row-major tensor, in
 *                       chunks of about 4 MiB where it is long
 *   /contents           names, shapes, ranges, the CRC-32 of every chunk (checkpoint_table.h)
 *   attributes of /     format, format_version, iteration, stage, save_id, shard, n_shards,
 *                       manifest
 *
 * A master (format "tmd.checkpoint", version 2)
 *   /ROLE/KIND/NAME     the whole tensor as a virtual dataset over the shards, for h5py and others.
 *                       (HDF5 shows zeros, without a word, where a shard is missing.)
 *   /contents           the same table for all shards
 *   attributes of /     as those of an unsharded checkpoint; save_id, n_shards
 *
 * This program reads the table, and the shards by names that follow from numbers: iteration,
 * save_id and n_shards.  It never opens a virtual dataset nor a file that is named inside a file.
 * A folder can be moved as a whole.
 *
 * A save in three steps:
 *   1. every rank: ckpt_shard_open, ckpt_shard_write_f32 ..., ckpt_writer_commit: its shard is on
 *      the disk;
 *   2. the ranks tell each other whether all of them succeeded;
 *   3. one rank: ckpt_master_open, values, ckpt_writer_commit.  The rename of the master is the one
 *      moment from which on the checkpoint exists; or, if any rank failed, ckpt_save_abandon.
 * After a crash before that moment the shards are garbage, which the next save removes.  The id,
 * drawn anew for every save, keeps a save from writing over a checkpoint of the same iteration, and
 * a master from taking shards of another save for its own. */
#ifndef TMD_DATA_CHECKPOINT_SHARDS_H
#define TMD_DATA_CHECKPOINT_SHARDS_H

#include "data/checkpoint_writer.h"

#define CKPT_SHARD_FORMAT "tmd.checkpoint.shard"

/* On all ranks the same. */
struct CkptSave {
    const char *folder; /* which exists */
    int64_t iteration;
    const char *stage;
    int64_t id; /* of ckpt_save_id, on one rank */
    int n_shards;
    int zstd_level;
};

/* A random number >= 0. */
int64_t ckpt_save_id(void);

/* Begins shard number `shard`.  The opener of shard 0 first removes what crashed writers left. */
bool ckpt_shard_open(const struct CkptSave *save, int shard, struct CkptWriter **out,
                     struct Error *err);

/* The elements begin <= i < end of the row-major tensor of that shape, in data [end - begin], which
 * is only read; none if begin == end.  Names as for ckpt_write_f32.  The shards that have a part of
 * a tensor must name the same shape, and their ranges follow each other in the order of the shards
 * from 0 to the number of elements: ckpt_master_open refuses all else. */
bool ckpt_shard_write_f32(struct CkptWriter *w, const char *group, const char *name, int n_dims,
                          const int64_t *shape, int64_t begin, int64_t end, const float *data,
                          struct Error *err);

/* Begins the master of shards that are all on the disk; ckpt_set_int and its like add the values.
 */
bool ckpt_master_open(const struct CkptSave *save, struct CkptWriter **out, struct Error *err);

/* Removes the shards of a save that will not be completed; after all ranks have ended theirs. */
void ckpt_save_abandon(const struct CkptSave *save);

#endif
