/* The hash FNV-1a of 64 bits (Fowler, Noll and Vo), byte by byte.  It tells names apart: it is
 * no protection against anybody who wants two texts to have one hash.
 *
 *     hash = FNV_START; for each byte: hash = fnv_byte(hash, byte) */
#ifndef TMD_FNV_H
#define TMD_FNV_H

#include <stddef.h>
#include <stdint.h>

#define FNV_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t fnv_byte(uint64_t hash, unsigned char byte) {
    return (hash ^ byte) * UINT64_C(0x100000001b3);
}

/* The hash of n_bytes bytes. */
static inline uint64_t fnv_hash(const void *bytes, size_t n_bytes) {
    const unsigned char *at = bytes;
    uint64_t hash = FNV_START;
    for (size_t i = 0; i < n_bytes; i++) hash = fnv_byte(hash, at[i]);
    return hash;
}

#endif
