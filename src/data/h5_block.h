/* Blocks of HDF5 arrays, found through the library and read without it.
 *
 * A block is a chunk, or an unchunked array as a whole.  HDF5 is asked once where a block lies;
 * from then on its lock is not needed, and threads read and decode as many blocks at a time as
 * there are processors.  (h5_array.h reads chunk after chunk.)
 *
 * For files that are only read: what a writer still holds in memory would not be seen. */
#ifndef TMD_DATA_H5_BLOCK_H
#define TMD_DATA_H5_BLOCK_H

#include "data/h5_array.h"

struct H5Block {
    int descriptor;           /* the library's own, valid while the file is open */
    int64_t offset, n_stored; /* bytes in the file */
    int64_t n_bytes;          /* once decoded; of the last chunk too, which ends in padding */
    int64_t element_bytes;
    struct H5Filters filters;
    uint32_t left_out; /* h5_chunk_decode's */
};

/* Rows of every block but the last, which may have fewer. */
int64_t h5_block_rows(const struct H5Array *array);

/* Where block number `block` of an open array lies.  Compact storage and a file with a user block
 * are errors, as is a chunk that claims more bytes than one can have; none names the array. */
bool h5_block_locate(const struct H5Array *array, int64_t block, struct H5Block *out,
                     struct Error *err);

/* Has the system begin to fetch the block from the disk, without waiting for it. */
void h5_block_prefetch(const struct H5Block *block);

/* Memory of one thread, for one block after another: begins zeroed, grows with the blocks. */
struct H5BlockBuffers {
    unsigned char *stored, *scratch;
    int64_t stored_bytes, scratch_bytes;
};

/* Reads a block into out [n_bytes]; calls nothing of HDF5. */
bool h5_block_read(const struct H5Block *block, struct H5BlockBuffers *buffers, void *out,
                   struct Error *err);
void h5_block_buffers_free(struct H5BlockBuffers *buffers);

#endif
