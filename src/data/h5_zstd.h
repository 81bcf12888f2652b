/* The HDF5 filter 32015: chunks compressed with Zstandard.
 *
 * The stored chunk is one Zstandard frame with its content size in the header; the filter's only
 * parameter is the compression level.  That is the registered filter of the HDF Group's list
 * (https://github.com/aparamon/HDF5Plugin-Zstandard), so h5py reads our files after
 * `import hdf5plugin`, and we read its.
 *
 * h5_array.h sets the filter on the arrays that it creates and decodes chunks on its own, knowing
 * how long they must be.  The registered filter serves HDF5's own pipeline, which does not tell a
 * filter that length; there a frame may claim H5_ZSTD_MAX_BYTES at most. */
#ifndef TMD_DATA_H5_ZSTD_H
#define TMD_DATA_H5_ZSTD_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

enum { H5_ZSTD_FILTER = 32015, H5_ZSTD_MIN_LEVEL = 1, H5_ZSTD_MAX_LEVEL = 19 };
#define H5_ZSTD_MAX_BYTES ((int64_t)1 << 30)

/* Makes the filter known to the library; repeated calls are harmless.  False: HDF5 refused. */
bool h5_zstd_register(void);

/* Appends the filter to a dataset creation property list.  False: HDF5 refused. */
bool h5_zstd_set(hid_t creation_list, int level);

/* Encodes n_in bytes as one frame into out [capacity]; its length, or 0 if it does not fit. */
int64_t h5_zstd_encode(void *out, int64_t capacity, const void *in, int64_t n_in, int level);

/* Decodes one frame that must yield exactly n_out bytes; false if it does not. */
bool h5_zstd_decode(void *out, int64_t n_out, const void *in, int64_t n_in);

#endif
