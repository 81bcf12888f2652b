/* The CRC-32 of zlib and PNG (polynomial 0x04C11DB7, reflected), of everything that we store. */
#ifndef TMD_DATA_CRC32_H
#define TMD_DATA_CRC32_H

#include <stdint.h>

/* The CRC-32 of some bytes followed by these, given the CRC-32 `before` of the former (0: none). */
uint32_t crc32_after(uint32_t before, const void *bytes, int64_t n_bytes);

/* Of two stretches of bytes in a row, from their own; the second has n_bytes. */
uint32_t crc32_joined(uint32_t first, uint32_t second, int64_t n_bytes);

#endif
