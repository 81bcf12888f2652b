/* Arrays in HDF5 files, read and written by rows (indices along the first dimension).
 *
 * What is accepted: contiguous, compact or chunked datasets whose chunks hold whole rows (a chunk's
 * other dimensions are the array's), all chunks present, of at most H5_MAX_CHUNK_BYTES, stored
 * plain or through some of byte shuffle, then zstd (32015) or deflate, then fletcher32.  What is
 * refused: external storage, virtual datasets, other filters, element types that h5_element.h does
 * not name.
 *
 * Chunks are read raw and decoded here rather than by the library: the declared length of a chunk
 * then bounds every write, where HDF5's pipeline trusts what a filter returns; and decoding happens
 * outside the library's lock, in parallel with a thread that writes a checkpoint.  h5_array_fill
 * encodes chunks here, for the same reason.
 *
 * An array has buffers for one chunk and belongs to one thread at a time. */
#ifndef TMD_DATA_H5_ARRAY_H
#define TMD_DATA_H5_ARRAY_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "data/h5_chunk.h"
#include "data/h5_element.h"
#include "data/h5_heap.h"
#include "error.h"

enum { H5_MAX_RANK = 8 };
#define H5_MAX_CHUNK_BYTES ((int64_t)1 << 30)

struct H5Array {
    hid_t dataset;
    int element; /* an enum Dtype or enum H5Element */
    int rank;    /* 0: a scalar, which counts as one row */
    int64_t dims[H5_MAX_RANK];
    int64_t n_rows;     /* dims[0] */
    int64_t row_elems;  /* product of dims[1..] */
    int64_t row_bytes;  /* as stored; of a text: of the reference to it */
    int64_t chunk_rows; /* 0: not chunked */
    int64_t chunk_bytes;
    struct H5Filters filters;
    int zstd_level;                            /* of an array that was created */
    unsigned char *stored, *decoded, *scratch; /* one chunk each */
    int64_t stored_capacity;
    int64_t decoded_chunk; /* which chunk lies in `decoded`; -1: none */
    struct H5Heap heap;    /* of text */
};

struct H5Layout {
    int element;
    int rank;
    const int64_t *dims; /* [rank]; dims[0] may be 0 where h5_array_append fills the array */
    int64_t chunk_rows;  /* 0: contiguous, of fixed length, unfiltered */
    int zstd_level;      /* of chunked arrays, with byte shuffle before it; 0: plain */
};

/* Opens the array `name` below `location`; h5_array_close gives it back.  Buffers are allocated
 * here, none later. */
bool h5_array_open(hid_t location, const char *name, struct H5Array *array, struct Error *err);
/* Creates an array that can be written and read.  A chunked one can grow. */
bool h5_array_create(hid_t location, const char *name, const struct H5Layout *layout,
                     struct H5Array *array, struct Error *err);
/* Harmless on a zeroed struct and on a closed one. */
void h5_array_close(struct H5Array *array);

/* out [n_rows, row_elems], elements as stored.  Rows beyond the end are an error. */
bool h5_array_read(struct H5Array *array, int64_t first_row, int64_t n_rows, void *out,
                   struct Error *err);
/* in [n_rows, row_elems], over existing rows. */
bool h5_array_write(struct H5Array *array, int64_t first_row, int64_t n_rows, const void *in,
                    struct Error *err);
/* in [n_rows, row_elems] of the whole array, once, right after it was created.  Chunks are encoded
 * outside the library's lock, which is held for one chunk at a time: threads that read other files
 * go on beside it. */
bool h5_array_fill(struct H5Array *array, const void *in, struct Error *err);
/* in [n_rows, row_elems], behind the last row. */
bool h5_array_append(struct H5Array *array, int64_t n_rows, const void *in, struct Error *err);

/* One string of a text array (rank 1) of a file that is only read: at most max_bytes bytes, valid
 * UTF-8, in fresh memory that the caller frees. */
bool h5_text_read(struct H5Array *array, int64_t row, int64_t max_bytes, char **text,
                  struct Error *err);
bool h5_text_append(struct H5Array *array, const char *text, struct Error *err);

#endif
