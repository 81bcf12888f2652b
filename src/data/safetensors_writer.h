/* Writing safetensors: one file, or several with an index, that appear whole or not at all.
 *
 * All tensors are declared first, since the header precedes the data; then each is written once, in
 * any order.  In the file they are ordered by element width, widest first, then by name, so that
 * every tensor is aligned to its elements (the header is padded to 8 bytes). */
#ifndef TMD_DATA_SAFETENSORS_WRITER_H
#define TMD_DATA_SAFETENSORS_WRITER_H

#include "data/safetensors.h"

struct SafetensorsWriter;

/* One file `path`. */
struct SafetensorsWriter *safetensors_writer_new(const char *path);

/* <folder>/<stem>.safetensors if the data fits max_shard_bytes; otherwise files
 * <stem>-00001-of-0000N.safetensors of at most max_shard_bytes each (more where a single tensor is
 * larger), and <stem>.safetensors.index.json. */
struct SafetensorsWriter *safetensors_writer_new_sharded(const char *folder, const char *stem,
                                                         int64_t max_shard_bytes);

/* An entry of "__metadata__" of every file, in UTF-8; a later value replaces an earlier. */
void safetensors_writer_metadata(struct SafetensorsWriter *w, const char *key, const char *value);

/* Names a tensor to come, at most once, in UTF-8; 0 <= n_dims <= SAFETENSORS_MAX_DIMS. */
void safetensors_writer_declare(struct SafetensorsWriter *w, const char *name, enum Dtype dtype,
                                int n_dims, const int64_t *shape);

/* Write a declared tensor (row-major), converting to its type; I64 takes only integers. */
bool safetensors_write_f32(struct SafetensorsWriter *w, const char *name, const float *data,
                           struct Error *err);
bool safetensors_write_f64(struct SafetensorsWriter *w, const char *name, const double *data,
                           struct Error *err);
bool safetensors_write_i64(struct SafetensorsWriter *w, const char *name, const int64_t *data,
                           struct Error *err);

/* Puts the files in place (the index last) and frees the writer, also on failure.  All declared
 * tensors must have been written. */
bool safetensors_writer_commit(struct SafetensorsWriter *w, struct Error *err);
/* Removes what was written and frees the writer; NULL is allowed. */
void safetensors_writer_abandon(struct SafetensorsWriter *w);

#endif
