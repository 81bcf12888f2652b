/* What the writers of all files of a checkpoint share: unsharded ones, shards, masters. */
#ifndef TMD_DATA_CHECKPOINT_WRITER_PARTS_H
#define TMD_DATA_CHECKPOINT_WRITER_PARTS_H

#include <hdf5.h>

#include "data/checkpoint_contents.h"
#include "data/checkpoint_writer.h"

struct CkptWriter {
    char *path, *partial;
    int version;
    int zstd_level;
    int shard; /* of a shard */
    hid_t file;
    hid_t group;      /* the group that was written to last, or H5I_INVALID_HID */
    char *group_name; /* its name, or NULL */
    struct CkptContents contents;
};

struct CkptHeader {
    const char *format;
    int version; /* CKPT_VERSION_SHARDED: the commit adds the table of contents */
    int64_t iteration;
    const char *stage;
};

/* Creates `<path>.partial` with the values of the header. */
bool ckpt_writer_create(const char *path, const struct CkptHeader *header, int zstd_level,
                        struct CkptWriter **out, struct Error *err);

/* Makes "role/kind" the current group, creating it if need be. */
bool ckpt_writer_select_group(struct CkptWriter *w, const char *name, struct Error *err);

/* Writes a dataset into the current group; with the attribute crc32 unless that is NULL. */
bool ckpt_writer_add_array(struct CkptWriter *w, const char *name, int n_dims, const int64_t *dims,
                           const float *data, const uint32_t *crc32, struct Error *err);

/* A tensor of this name and shape is what the format allows. */
void ckpt_writer_check_tensor(const char *name, int n_dims, const int64_t *shape);

#endif
