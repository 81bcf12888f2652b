/* A small checkpoint with known contents, for the tests of checkpoints. */
#ifndef TMD_TESTS_CHECKPOINT_FIXTURE_H
#define TMD_TESTS_CHECKPOINT_FIXTURE_H

#include "data/checkpoint_shards.h"

enum { SMALL_CKPT_TENSORS = 5, SMALL_CKPT_MAX_ELEMS = 150 * 160 };

extern const struct SmallCkptTensor {
    const char *group, *name;
    int n_dims;
    int64_t shape[4];
} small_ckpt_tensors[SMALL_CKPT_TENSORS];

/* The number of elements of tensor t, and its values: smooth enough to compress, different for each
 * tensor and iteration. */
int64_t small_ckpt_elems(int t);
void small_ckpt_fill(float *out, int t, int64_t iteration);

/* Writes the checkpoint of `iteration` into the folder, with that Zstandard level. */
bool small_ckpt_write(const char *folder, int64_t iteration, int level, struct Error *err);

/* The same sharded.  Tensors are cut at different places; the first shard has nothing of most.
 * small_ckpt_write_shard ends with the shard on the disk, small_ckpt_write_master with the
 * checkpoint. */
struct CkptSave small_ckpt_save(const char *folder, int64_t iteration, int level, int n_shards);
bool small_ckpt_write_shard(const struct CkptSave *save, int shard, struct Error *err);
bool small_ckpt_write_master(const struct CkptSave *save, struct Error *err);
bool small_ckpt_write_sharded(const struct CkptSave *save, struct Error *err);
/* All of that; failure is the running test's.  Returns the master's path, which the caller frees.
 */
char *small_ckpt_make_sharded(const struct CkptSave *save);

/* The same unsharded; failure is the running test's.  Returns the path, which the caller frees. */
char *small_ckpt_make(const char *folder, int64_t iteration, int level);

/* Opens, verifies and compares everything with what small_ckpt_write wrote: false and a reason if
 * the file is refused; a silent difference fails the running test. */
bool small_ckpt_read(const char *path, int64_t iteration, struct Error *err);

/* The error is one line, which says `what`. */
void assert_names(const struct Error *err, const char *what);

#endif
