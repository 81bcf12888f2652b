/* Writing a checkpoint (checkpoint.h), tensor by tensor.  The same functions write what all files
 * of a sharded checkpoint have in common; checkpoint_shards.h has the rest.
 *
 * The file grows under the name `<path>.partial` and takes its own name once it is complete and on
 * the disk.  A crash at any moment leaves earlier checkpoints as they were, and at worst a partial
 * file, which the next writer to the same folder removes.  One writer per folder at a time.
 *
 * After any error (such as a full disk) call ckpt_writer_abandon.
 *
 * A writer belongs to one thread.  Other threads may read datasets or write other files at the same
 * time: HDF5's lock is never held for longer than it takes to write a chunk (h5_file.h,
 * h5_array.h). */
#ifndef TMD_DATA_CHECKPOINT_WRITER_H
#define TMD_DATA_CHECKPOINT_WRITER_H

#include "data/checkpoint.h"

struct CkptWriter;

/* Begins `<folder>/step-<iteration>.h5`; the folder must exist.  zstd_level 1 to 19; 0: plain. */
bool ckpt_writer_open(const char *folder, int64_t iteration, const char *stage, int zstd_level,
                      struct CkptWriter **out, struct Error *err);
/* The same under a name of the caller's. */
bool ckpt_writer_open_path(const char *path, int64_t iteration, const char *stage, int zstd_level,
                           struct CkptWriter **out, struct Error *err);

/* `group` is "role/kind"; `name` unique in it, printable, without a slash; 1 <= n_dims <=
 * CKPT_MAX_DIMS, no dimension 0.  `data` is row-major and only read. */
bool ckpt_write_f32(struct CkptWriter *w, const char *group, const char *name, int n_dims,
                    const int64_t *shape, const float *data, struct Error *err);

/* Values by key; each key once.  Texts are UTF-8 and shorter than CKPT_MAX_TEXT. */
bool ckpt_set_int(struct CkptWriter *w, const char *key, int64_t value, struct Error *err);
bool ckpt_set_real(struct CkptWriter *w, const char *key, double value, struct Error *err);
bool ckpt_set_text(struct CkptWriter *w, const char *key, const char *text, struct Error *err);

/* Writes the table of contents of a sharded checkpoint and the manifest, syncs, renames.  Frees the
 * writer, also on failure. */
bool ckpt_writer_commit(struct CkptWriter *w, struct Error *err);
/* Removes the partial file and frees the writer; NULL is allowed. */
void ckpt_writer_abandon(struct CkptWriter *w);

#endif
