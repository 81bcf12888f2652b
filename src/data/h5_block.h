/* Blocks of HDF5 arrays, found through the library and read without it.
 *
 * A block is a chunk, or an unchunked array as a whole.  HDF5 is asked once where a block lies;
 * from then on its lock is not needed, and threads decode as many blocks at a time as there are
 * processors.  (h5_array.h reads chunk after chunk.)
 *
 * For files that are only read: what a writer still holds in memory would not be seen. */
#ifndef TMD_DATA_H5_BLOCK_H
#define TMD_DATA_H5_BLOCK_H

#include "data/h5_array.h"

struct H5Block {
    /* of all blocks of an array */
    int descriptor;  /* the library's own, valid while the file is open */
    int64_t n_bytes; /* once decoded; of the last chunk too, which ends in padding */
    int64_t element_bytes;
    struct H5Filters filters;
    /* of this one */
    int64_t offset, n_stored; /* bytes in the file */
    uint32_t left_out;        /* h5_chunk_decode's */
};

/* Rows of every block but the last, which may have fewer. */
int64_t h5_block_rows(const struct H5Array *array);

/* What all blocks of an open array have in common.  A file with a user block is an error, which does
 * not name the array; so below. */
bool h5_block_begin(const struct H5Array *array, struct H5Block *block, struct Error *err);
/* Where block number `number` of the array lies; `block` has been h5_block_begin's.  Compact storage
 * is an error, as is a chunk that claims more bytes than one can have. */
bool h5_block_locate(const struct H5Array *array, int64_t number, struct H5Block *block,
                     struct Error *err);

/* Memory of one thread, for one block after another: begins zeroed, grows with the blocks. */
struct H5BlockBuffers {
    unsigned char *stored, *scratch;
    int64_t stored_bytes, scratch_bytes;
};

/* These call nothing of HDF5.  From the file into the buffers: */
bool h5_block_fetch(const struct H5Block *block, struct H5BlockBuffers *buffers, struct Error *err);
/* What was fetched last into out [n_bytes]: */
bool h5_block_decode(const struct H5Block *block, struct H5BlockBuffers *buffers, void *out,
                     struct Error *err);
void h5_block_buffers_free(struct H5BlockBuffers *buffers);

#endif
