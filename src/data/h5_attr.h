/* Attributes of HDF5 objects: single numbers, lists of numbers, texts.
 *
 * Written as 64-bit little-endian numbers and fixed-length UTF-8 strings (those of variable length
 * lie in a heap without checksums, and HDF5 1.10 never comes back from a damaged one).  Read as
 * h5py and others write them: integers of any width and NumPy's booleans as int64, floats and
 * integers as double, strings of fixed or variable length.  A missing attribute, another type and
 * an unexpected count are errors that name file, object and attribute; h5_attr_exists asks first
 * where it is optional. */
#ifndef TMD_DATA_H5_ATTR_H
#define TMD_DATA_H5_ATTR_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

bool h5_attr_exists(hid_t object, const char *name);

bool h5_attr_read_i64(hid_t object, const char *name, int64_t *value, struct Error *err);
bool h5_attr_read_double(hid_t object, const char *name, double *value, struct Error *err);
/* A list of 1 to max_n numbers; *n is how many. */
bool h5_attr_read_doubles(hid_t object, const char *name, double *values, int max_n, int *n,
                          struct Error *err);
/* A text of at most max_bytes bytes, valid UTF-8, in fresh memory that the caller frees. */
bool h5_attr_read_text(hid_t object, const char *name, int64_t max_bytes, char **text,
                       struct Error *err);

/* Writing replaces an attribute of the same name. */
bool h5_attr_write_i64(hid_t object, const char *name, int64_t value, struct Error *err);
bool h5_attr_write_double(hid_t object, const char *name, double value, struct Error *err);
bool h5_attr_write_doubles(hid_t object, const char *name, const double *values, int n,
                           struct Error *err);
bool h5_attr_write_text(hid_t object, const char *name, const char *text, struct Error *err);

#endif
