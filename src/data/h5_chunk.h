/* One stored chunk of an HDF5 dataset, decoded and encoded without HDF5's filter pipeline.
 *
 * A chunk passes the filters in the order byte shuffle, then zstd or deflate, then fletcher32, each
 * of them optional; decoding undoes them from the end.  Whatever the bytes are, exactly n_out bytes
 * come out or decoding fails.  Encoding knows the filters of arrays that h5_array.h creates: both
 * of byte shuffle and zstd, or none. */
#ifndef TMD_DATA_H5_CHUNK_H
#define TMD_DATA_H5_CHUNK_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum H5Stage {
    H5_STAGE_SHUFFLE,
    H5_STAGE_ZSTD,
    H5_STAGE_DEFLATE,
    H5_STAGE_FLETCHER32,
    H5_STAGE_COUNT
};

/* Which filters a dataset has: their position in its pipeline, which is their bit in the mask of
 * filters that a chunk left out; -1: absent. */
struct H5Filters {
    int position[H5_STAGE_COUNT];
};

/* Reads the pipeline of a dataset creation property list.  An error names the filter that is none
 * of ours, or says that the order is another; it does not name the dataset. */
bool h5_filters_read(hid_t creation_list, struct H5Filters *filters, struct Error *err);

/* Of data that passes none. */
struct H5Filters h5_filters_none(void);

/* The longest that a chunk of n_bytes can sensibly be once stored. */
int64_t h5_chunk_stored_bound(int64_t n_bytes);

/* out [n_out] from in [n_in]; scratch [n_out] is used by the shuffle.  `left_out` is the chunk's
 * mask of filters that were not applied.  The error says which stage failed. */
bool h5_chunk_decode(const struct H5Filters *filters, uint32_t left_out, int64_t element_bytes,
                     unsigned char *out, unsigned char *scratch, int64_t n_out,
                     const unsigned char *in, int64_t n_in, struct Error *err);

/* out [capacity], of at least h5_chunk_stored_bound(n_in), from in [n_in]; scratch [n_in] is used
 * by the shuffle.  Returns how many bytes `out` has then. */
int64_t h5_chunk_encode(const struct H5Filters *filters, int zstd_level, int64_t element_bytes,
                        unsigned char *out, int64_t capacity, unsigned char *scratch,
                        const unsigned char *in, int64_t n_in);

#endif
