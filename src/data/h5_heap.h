/* Strings of variable length, read from an HDF5 file's global heap without the library.
 *
 * A dataset of such strings stores references; the bytes lie in "global heap collections" (HDF5
 * File Format Specification 3.0, III.E and IV.A.2.d):
 *
 *   reference   length u32, address of the collection, index u32
 *   collection  "GCOL", version 1, three zeros, length of the collection; then objects, one
 *               behind the other
 *   object      index u16, references u16, four zeros, length; then its bytes, padded to 8.
 *               Index 0 is the free space at the end; its length counts its own header.
 *
 * Addresses and lengths are little-endian, of the widths that the file's superblock says.  The
 * library (1.10) never returns from a collection in which a damaged object claims no length; here
 * every step is checked. */
#ifndef TMD_DATA_H5_HEAP_H
#define TMD_DATA_H5_HEAP_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

/* The heap of a file that is open for reading, with the collection that was read last. */
struct H5Heap {
    int descriptor; /* the library's own */
    int address_bytes, length_bytes;
    int64_t base; /* what addresses count from: the length of the user block */
    unsigned char *collection;
    int64_t collection_address, n_bytes, capacity;
};

/* Bytes of a reference; 0: the file's widths are none that are possible. */
int64_t h5_heap_reference_bytes(hid_t location);

/* `location` is the file or anything in it and must stay open. */
bool h5_heap_open(struct H5Heap *heap, hid_t location, struct Error *err);
void h5_heap_close(struct H5Heap *heap);

/* The string of a reference, at most max_bytes long, in fresh memory that the caller frees. */
bool h5_heap_read(struct H5Heap *heap, const unsigned char *reference, int64_t max_bytes,
                  char **text, struct Error *err);

/* Fills `out` from the file's bytes at `offset` (user block included). */
bool h5_heap_pread(const struct H5Heap *heap, void *out, int64_t n_bytes, int64_t offset,
                   struct Error *err);

#endif
