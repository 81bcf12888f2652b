/* Ranges of the elements of stored arrays: what reading whole and sharded checkpoints has in
 * common.
 *
 * The caller adds ranges, which asks HDF5 where their blocks lie (h5_block.h).  Threads begin to read
 * while it does: one after the other fetches a block, in the order of adding, and while the next one
 * does so, decodes and checks it.
 *
 *     ckpt_reading_add(reading, ...) for each range;  ckpt_reading_run(reading, ...) */
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

/* What is known of an array beforehand; NULL: nothing. */
struct CkptSums {
    const uint32_t *blocks; /* [blocks of the array]: the CRC-32 of each */
    const uint32_t *whole;  /* of all of them, one after the other; for ranges that are all of it */
};

/* Keeps the threads' memory from one run to the next. */
struct CkptReading;

struct CkptReading *ckpt_reading_create(void);
/* Harmless on NULL. */
void ckpt_reading_destroy(struct CkptReading *reading);

/* Adds the blocks (chunks, or the array as a whole) in which the range lies, and nothing else.  The
 * file stays open, and the sums and `out` in place, until all is read; the array may be closed.
 * Errors, of this or later, begin with `where`. */
bool ckpt_reading_add(struct CkptReading *reading, const struct H5Array *array,
                      const struct CkptRange *range, struct CkptSums sums, const char *where,
                      struct Error *err);
/* How many blocks have been added. */
int64_t ckpt_reading_blocks(const struct CkptReading *reading);
/* Reads what has been added and is not read yet; afterwards nothing is.  Of several errors the first by
 * order of adding. */
bool ckpt_reading_run(struct CkptReading *reading, struct Error *err);
/* Forgets what has been added: the way out after an error. */
void ckpt_reading_clear(struct CkptReading *reading);

#endif
