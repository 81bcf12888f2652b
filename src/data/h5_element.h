/* Element types of arrays in HDF5 files.  All numbers are little-endian.
 *
 *   f32, f64       IEEE floats
 *   i64, u8, u32   integers
 *   f16            a 2-byte IEEE float (NumPy's float16, as h5py writes it)
 *   bf16           HDF5 1.10 has no such type: uint16 with the attribute dtype = "bf16" on the
 *                  dataset; in Python .view(ml_dtypes.bfloat16), or
 *                  torch.from_numpy(d[()]).view(torch.bfloat16)
 *   text           strings of variable length */
#ifndef TMD_DATA_H5_ELEMENT_H
#define TMD_DATA_H5_ELEMENT_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "dtype.h"
#include "error.h"

/* An element is an int: an enum Dtype or one of these. */
enum H5Element { H5_U8 = DTYPE_COUNT, H5_U32, H5_TEXT, H5_ELEMENT_COUNT };

/* "f32", ..., "u8", "u32", "text". */
const char *h5_element_name(int element);

/* Bytes of one element; 0 for text. */
int64_t h5_element_bytes(int element);

/* The HDF5 type of stored elements, which is also what they are read as; H5Tclose gives it back. */
hid_t h5_element_type(int element);

/* The element of a dataset, or H5_ELEMENT_COUNT if it is none of ours. */
int h5_element_of(hid_t dataset);

/* Adds what the type alone does not say about a fresh dataset (the attribute of bf16). */
bool h5_element_mark(hid_t dataset, int element, struct Error *err);

#endif
