/* libdeflate multiplies without carries, 64 bytes at a time; zlib's own looks every byte up, which
 * took longer than all else that a load does. */
#include "data/crc32.h"

#include <libdeflate.h>
#include <zlib.h>

uint32_t crc32_after(uint32_t before, const void *bytes, int64_t n_bytes) {
    if (n_bytes == 0) return before; /* `bytes` may be NULL, which asks for the initial value */
    return libdeflate_crc32(before, bytes, (size_t)n_bytes);
}

uint32_t crc32_joined(uint32_t first, uint32_t second, int64_t n_bytes) {
    return (uint32_t)crc32_combine(first, second, n_bytes);
}
