/* Ranges of the elements of one stored array, block by block: what reading whole and sharded
 * checkpoints has in common. */
#ifndef TMD_DATA_CHECKPOINT_READ_H
#define TMD_DATA_CHECKPOINT_READ_H

#include <stdbool.h>
#include <stdint.h>

#include "data/h5_array.h"

struct CkptRange {
    int64_t begin, end; /* elements, row-major; begin < end */
    bool allow_nonfinite;
    float *out; /* [end - begin], or NULL: only check */
};

/* Reads the blocks (chunks, or the array as a whole) in which the range lies, and nothing else.
 * block_crc32 [n_blocks of the array] is what each must have as its CRC-32, NULL: unknown.  *crc32
 * becomes the CRC-32 of all blocks that were read, one after the other. */
bool ckpt_read_blocks(struct H5Array *array, const struct CkptRange *range,
                      const uint32_t *block_crc32, uint32_t *crc32, struct Error *err);

#endif
