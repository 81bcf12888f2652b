/* Checkpoints: one HDF5 file that holds everything a run needs to go on, or one that stands for the
 * files of all ranks.
 *
 * Layout of a file (format version 1)
 *   /ROLE/KIND/NAME     float32 tensors, little-endian: /student/param/blocks.0.self_attn.q.weight,
 *                       /student/adam_m/..., /student/ema/...; large ones in chunks of about 4 MiB,
 *                       through byte shuffle and zstd
 *     attribute crc32   zlib's CRC-32 of the tensor's uncompressed bytes
 *   attributes of /     format "tmd.checkpoint", format_version, iteration, stage, manifest; and
 *                       values of three kinds (int64, double, text of fixed length) that the run
 *                       adds under keys of its own
 *
 * `manifest`, written last, is the CRC-32 of the list of all values and all tensors with their
 * checksums (checkpoint_contents.h): a file without it was never finished, and a file in which any
 * name, shape, value or checksum has changed does not match it.
 *
 * A sharded checkpoint (format version 2, checkpoint_shards.h) looks the same to those who read it
 * through this header or through h5py.
 *
 * This header reads; checkpoint_writer.h and checkpoint_shards.h write; checkpoint_folder.h keeps a
 * run's folder. */
#ifndef TMD_DATA_CHECKPOINT_H
#define TMD_DATA_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

#define CKPT_FORMAT "tmd.checkpoint"
enum { CKPT_VERSION_SINGLE = 1, CKPT_VERSION_SHARDED = 2 };
enum { CKPT_MAX_DIMS = 8, CKPT_MAX_NAME = 255, CKPT_MAX_TEXT = 1 << 20, CKPT_MAX_SHARDS = 1 << 16 };

/* The resolved configuration of the run as YAML; of an import, its `model:` section.  What programs
 * need of it without reading YAML is in values of its own: checkpoint_model.h. */
#define CKPT_KEY_CONFIG "config"

struct CkptTensorInfo {
    const char *group; /* "student/param" */
    const char *name;  /* "blocks.0.self_attn.q.weight" */
    int n_dims;
    int64_t shape[CKPT_MAX_DIMS];
    int64_t n_elems;
    uint32_t crc32;
    int64_t first_piece, n_pieces; /* of a sharded checkpoint: checkpoint_contents.h */
};

enum CkptKind { CKPT_INT, CKPT_REAL, CKPT_TEXT };

struct CkptValue {
    const char *key;
    enum CkptKind kind;
    int64_t integer; /* the one that `kind` names is meaningful */
    double real;
    const char *text;
};

struct Ckpt;

/* Checks format, version and manifest, but reads no tensor and opens no shard. */
bool ckpt_open(const char *path, struct Ckpt **out, struct Error *err);
void ckpt_close(struct Ckpt *ckpt);

const char *ckpt_path(const struct Ckpt *ckpt);
int64_t ckpt_iteration(const struct Ckpt *ckpt);
const char *ckpt_stage(const struct Ckpt *ckpt);
/* In how many shard files the tensors lie; 0: they are in this file. */
int ckpt_shard_count(const struct Ckpt *ckpt);

/* Values in ascending order of their keys, without format, version, iteration and stage. */
int64_t ckpt_value_count(const struct Ckpt *ckpt);
const struct CkptValue *ckpt_value(const struct Ckpt *ckpt, int64_t i);
bool ckpt_has(const struct Ckpt *ckpt, const char *key);
/* A missing key and another kind are errors.  The text belongs to the checkpoint. */
bool ckpt_get_int(const struct Ckpt *ckpt, const char *key, int64_t *value, struct Error *err);
bool ckpt_get_real(const struct Ckpt *ckpt, const char *key, double *value, struct Error *err);
bool ckpt_get_text(const struct Ckpt *ckpt, const char *key, const char **text, struct Error *err);

/* Tensors in ascending order of group, then name; those of one group are neighbours. */
int64_t ckpt_count(const struct Ckpt *ckpt);
const struct CkptTensorInfo *ckpt_info(const struct Ckpt *ckpt, int64_t i);
/* The number of a tensor, or -1. */
int64_t ckpt_find(const struct Ckpt *ckpt, const char *group, const char *name);
/* How many tensors a group has, and the number of its first (undefined if none). */
int64_t ckpt_group(const struct Ckpt *ckpt, const char *group, int64_t *first);

/* Reads a tensor of the given shape into `out`, and checks its checksum while reading.  A NaN or an
 * infinity is an error unless allow_nonfinite. */
bool ckpt_read_f32(struct Ckpt *ckpt, const char *group, const char *name, int n_dims,
                   const int64_t *shape, bool allow_nonfinite, float *out, struct Error *err);

/* The same for the elements begin <= i < end of the flattened (row-major) tensor, which are all
 * that is read: out [end - begin].  Of a sharded checkpoint that checks the checksums of the chunks
 * in which they lie; of an unsharded one, nothing unless the range is the whole tensor. */
bool ckpt_read_range_f32(struct Ckpt *ckpt, const char *group, const char *name, int n_dims,
                         const int64_t *shape, int64_t begin, int64_t end, bool allow_nonfinite,
                         float *out, struct Error *err);

/* Such a range: elements begin <= i < end of the tensor of that name and shape, into out
 * [end - begin].  None if begin == end. */
struct CkptWanted {
    const char *group, *name;
    int n_dims;
    const int64_t *shape;
    int64_t begin, end;
    float *out;
};

/* Many of these at once: threads, one more than OpenMP has processors, read, decode and check a
 * chunk each, so that a load is as fast as the disk where processors allow.  Their memory, some
 * megabytes each, stays until ckpt_close.  On failure all `out` are undefined. */
bool ckpt_read_ranges_f32(struct Ckpt *ckpt, int64_t n, const struct CkptWanted *wanted,
                          bool allow_nonfinite, struct Error *err);

/* Reads everything and checks every checksum, with the same threads; or a part of everything: part
 * 0 <= part < n_parts, of about equal length. */
bool ckpt_verify(struct Ckpt *ckpt, struct Error *err);
bool ckpt_verify_part(struct Ckpt *ckpt, int part, int n_parts, struct Error *err);

#endif
