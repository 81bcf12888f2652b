/* A block that the range covers goes straight to its place; others, two at most, through a buffer.
 */
#include "data/checkpoint_read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/checkpoint_contents.h"

static int64_t lesser(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t greater(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static bool check_finite(const float *values, int64_t n_elems, struct Error *err) {
    for (int64_t i = 0; i < n_elems; i++) {
        if (!isfinite(values[i])) return error_set(err, "contains a value that is not finite");
    }
    return true;
}

static bool check_block(int64_t block, uint32_t found, const uint32_t *block_crc32,
                        struct Error *err) {
    return !block_crc32 || found == block_crc32[block] ||
           error_set(err, "is damaged: chunk %lld has checksum %08x, stored is %08x",
                     (long long)block, found, block_crc32[block]);
}

/* Reads block number `block`; `buffer` holds one. */
static bool read_block(struct H5Array *array, int64_t block, int64_t block_rows,
                       const struct CkptRange *range, float *buffer, const uint32_t *block_crc32,
                       uint32_t *crc32, struct Error *err) {
    int64_t row = block * block_rows, n_rows = lesser(block_rows, array->n_rows - row);
    int64_t begin = row * array->row_elems, end = begin + n_rows * array->row_elems;
    int64_t from = greater(begin, range->begin), to = lesser(end, range->end);
    bool direct = range->out && from == begin && to == end;
    float *values = direct ? range->out + (begin - range->begin) : buffer;
    if (!h5_array_read(array, row, n_rows, values, err)) return false;
    uint32_t found = ckpt_crc32(0, values, n_rows * array->row_bytes);
    if (!check_block(block, found, block_crc32, err)) return false;
    *crc32 = ckpt_crc32_combine(*crc32, found, n_rows * array->row_bytes);
    if (!range->allow_nonfinite && !check_finite(values + (from - begin), to - from, err))
        return false;
    if (range->out && !direct)
        memcpy(range->out + (from - range->begin), values + (from - begin),
               (size_t)(to - from) * sizeof *values);
    return true;
}

bool ckpt_read_blocks(struct H5Array *array, const struct CkptRange *range,
                      const uint32_t *block_crc32, uint32_t *crc32, struct Error *err) {
    int64_t block_rows = array->chunk_rows > 0 ? array->chunk_rows : array->n_rows;
    int64_t block_elems = block_rows * array->row_elems, block = range->begin / block_elems;
    float *buffer = xmalloc((size_t)(block_rows * array->row_bytes));
    bool read = true;
    for (*crc32 = 0; read && block * block_elems < range->end; block++)
        read = read_block(array, block, block_rows, range, buffer, block_crc32, crc32, err);
    free(buffer);
    return read;
}
