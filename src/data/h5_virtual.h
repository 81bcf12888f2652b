/* Virtual datasets: float32 arrays put together from ranges that lie in other files.
 *
 * Each source is a list (rank 1) that holds the elements begin ... end - 1 of the array in
 * row-major order.  In the array such a range is a sequence of at most 2 rank - 1 boxes: the end of
 * a row, the rows up to the end of a plane, whole planes, and down again to the start of a row.
 * Each box is one mapping of the virtual dataset (H5Pset_virtual).
 *
 * Written here for others to read; h5_array.h refuses such datasets. */
#ifndef TMD_DATA_H5_VIRTUAL_H
#define TMD_DATA_H5_VIRTUAL_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct H5Source {
    const char *file;    /* relative to the folder of the file that will hold the virtual dataset */
    const char *dataset; /* its path in that file, "/a/b" */
    int64_t begin, end;  /* begin < end */
};

/* Creates the array `name` [dims] below `location`.  Elements of no source read as zero. */
bool h5_virtual_create(hid_t location, const char *name, int rank, const int64_t *dims,
                       int64_t n_sources, const struct H5Source *sources, struct Error *err);

#endif
