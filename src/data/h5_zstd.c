/* The codec, and its registration as a filter of HDF5's pipeline. */
#include "data/h5_zstd.h"

#include <stdlib.h>
#include <zstd.h>

/* HDF5 hands over a malloc'ed buffer and takes a malloc'ed one back; 0 means failure. */
static size_t replace_buffer(void **buffer, size_t *capacity, void *fresh, size_t fresh_bytes,
                             size_t n_used) {
    if (n_used == 0) {
        free(fresh);
        return 0;
    }
    free(*buffer);
    *buffer = fresh;
    *capacity = fresh_bytes;
    return n_used;
}

static size_t decompress(size_t n_bytes, size_t *capacity, void **buffer) {
    unsigned long long n_out = ZSTD_getFrameContentSize(*buffer, n_bytes);
    if (n_out == ZSTD_CONTENTSIZE_UNKNOWN || n_out == ZSTD_CONTENTSIZE_ERROR || n_out == 0 ||
        n_out > (unsigned long long)H5_ZSTD_MAX_BYTES)
        return 0;
    void *out = malloc((size_t)n_out);
    if (!out) return 0;
    bool good = h5_zstd_decode(out, (int64_t)n_out, *buffer, (int64_t)n_bytes);
    return replace_buffer(buffer, capacity, out, (size_t)n_out, good ? (size_t)n_out : 0);
}

static size_t compress(int level, size_t n_bytes, size_t *capacity, void **buffer) {
    size_t bound = ZSTD_compressBound(n_bytes);
    void *out = malloc(bound);
    if (!out) return 0;
    int64_t n_out = h5_zstd_encode(out, (int64_t)bound, *buffer, (int64_t)n_bytes, level);
    return replace_buffer(buffer, capacity, out, bound, (size_t)n_out);
}

static size_t filter(unsigned int flags, size_t n_params, const unsigned int params[],
                     size_t n_bytes, size_t *capacity, void **buffer) {
    if (flags & H5Z_FLAG_REVERSE) return decompress(n_bytes, capacity, buffer);
    return compress(n_params > 0 ? (int)params[0] : ZSTD_CLEVEL_DEFAULT, n_bytes, capacity, buffer);
}

bool h5_zstd_register(void) {
    static const H5Z_class2_t zstd_class = {
        .version = H5Z_CLASS_T_VERS,
        .id = H5_ZSTD_FILTER,
        .encoder_present = 1,
        .decoder_present = 1,
        .name = "zstd",
        .filter = filter,
    };
    return H5Zregister(&zstd_class) >= 0;
}

bool h5_zstd_set(hid_t creation_list, int level) {
    unsigned int parameter = (unsigned int)level;
    return H5Pset_filter(creation_list, H5_ZSTD_FILTER, H5Z_FLAG_MANDATORY, 1, &parameter) >= 0;
}

int64_t h5_zstd_encode(void *out, int64_t capacity, const void *in, int64_t n_in, int level) {
    size_t n = ZSTD_compress(out, (size_t)capacity, in, (size_t)n_in, level);
    return ZSTD_isError(n) ? 0 : (int64_t)n;
}

bool h5_zstd_decode(void *out, int64_t n_out, const void *in, int64_t n_in) {
    size_t n = ZSTD_decompress(out, (size_t)n_out, in, (size_t)n_in);
    return !ZSTD_isError(n) && n == (size_t)n_out;
}
