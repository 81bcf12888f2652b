/* The filters themselves: shuffle and fletcher32 are written out here, zstd and deflate are those
 * of their libraries. */
#include "data/h5_chunk.h"

#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "data/h5_zstd.h"

static const struct {
    H5Z_filter_t id;
    int order; /* position among the filters of one pipeline; zstd and deflate exclude each other */
} stages[H5_STAGE_COUNT] = {
    [H5_STAGE_SHUFFLE] = {H5Z_FILTER_SHUFFLE, 0},
    [H5_STAGE_ZSTD] = {H5_ZSTD_FILTER, 1},
    [H5_STAGE_DEFLATE] = {H5Z_FILTER_DEFLATE, 1},
    [H5_STAGE_FLETCHER32] = {H5Z_FILTER_FLETCHER32, 2},
};

static int stage_of(H5Z_filter_t id) {
    for (int stage = 0; stage < H5_STAGE_COUNT; stage++)
        if (stages[stage].id == id) return stage;
    return -1;
}

struct H5Filters h5_filters_none(void) {
    struct H5Filters none;
    for (int stage = 0; stage < H5_STAGE_COUNT; stage++) none.position[stage] = -1;
    return none;
}

bool h5_filters_read(hid_t creation_list, struct H5Filters *filters, struct Error *err) {
    *filters = h5_filters_none();
    int n_filters = H5Pget_nfilters(creation_list), last_order = -1;
    for (int i = 0; i < n_filters; i++) {
        size_t n_params = 0;
        unsigned int flags, info;
        H5Z_filter_t id =
            H5Pget_filter2(creation_list, (unsigned)i, &flags, &n_params, NULL, 0, NULL, &info);
        int stage = stage_of(id);
        if (stage < 0)
            return error_set(err,
                             "expected chunks stored plain or through shuffle, zstd (%d), "
                             "deflate or fletcher32, got filter %d",
                             H5_ZSTD_FILTER, (int)id);
        if (stages[stage].order <= last_order)
            return error_set(err, "expected the filters in the order shuffle, zstd or deflate, "
                                  "fletcher32, got another order");
        last_order = stages[stage].order;
        filters->position[stage] = i;
    }
    return n_filters >= 0 || error_set(err, "the list of filters is damaged");
}

int64_t h5_chunk_stored_bound(int64_t n_bytes) {
    enum { CHECKSUM_AND_SLACK = 64 };
    size_t zstd = ZSTD_compressBound((size_t)n_bytes);
    size_t deflate = compressBound((uLong)n_bytes);
    return (int64_t)(zstd > deflate ? zstd : deflate) + CHECKSUM_AND_SLACK;
}

/* Adds the carries above 16 bits back in: the sum modulo 65535, in [0, 65535] after two rounds. */
static uint32_t fold(uint32_t sum) {
    return (sum & 0xFFFF) + (sum >> 16);
}

/* Fletcher's checksum over big-endian 16-bit words, as HDF5 computes it. */
static uint32_t fletcher32(const unsigned char *bytes, int64_t n_bytes) {
    enum { WORDS_BEFORE_OVERFLOW = 360 };
    uint32_t sum = 0, sum_of_sums = 0;
    int64_t n_words = (n_bytes + 1) / 2;
    for (int64_t i = 0; i < n_words; i++) {
        uint32_t low = 2 * i + 1 < n_bytes ? bytes[2 * i + 1] : 0;
        sum += (uint32_t)bytes[2 * i] << 8 | low;
        sum_of_sums += sum;
        if ((i + 1) % WORDS_BEFORE_OVERFLOW == 0 || 2 * i + 2 >= n_bytes) {
            sum = fold(sum);
            sum_of_sums = fold(sum_of_sums);
        }
    }
    return fold(sum_of_sums) << 16 | fold(sum);
}

static uint32_t load_u32(const unsigned char *in) {
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static bool deflate_decode(unsigned char *out, int64_t n_out, const unsigned char *in,
                           int64_t n_in) {
    uLongf n = (uLongf)n_out;
    return uncompress(out, &n, in, (uLong)n_in) == Z_OK && n == (uLongf)n_out;
}

/* out [n_elems, element_bytes] from in [element_bytes, n_elems].  Inlined where element_bytes is a
 * constant, it becomes shuffles of vectors: ten times as fast. */
static inline __attribute__((always_inline)) void
interleave(unsigned char *restrict out, const unsigned char *restrict in, int64_t n_elems,
           int64_t element_bytes) {
    for (int64_t i = 0; i < n_elems; i++)
        for (int64_t byte = 0; byte < element_bytes; byte++)
            out[i * element_bytes + byte] = in[byte * n_elems + i];
}

/* The stored order is byte 0 of every element, then byte 1 of every element, ...; bytes that fill
 * no element stay at the end. */
static void unshuffle(unsigned char *out, const unsigned char *in, int64_t n_bytes,
                      int64_t element_bytes) {
    int64_t n_elems = n_bytes / element_bytes, n_whole = n_elems * element_bytes;
    if (element_bytes == 2)
        interleave(out, in, n_elems, 2);
    else if (element_bytes == 4)
        interleave(out, in, n_elems, 4);
    else
        interleave(out, in, n_elems, element_bytes);
    memcpy(out + n_whole, in + n_whole, (size_t)(n_bytes - n_whole));
}

static void shuffle(unsigned char *out, const unsigned char *in, int64_t n_bytes,
                    int64_t element_bytes) {
    int64_t n_elems = n_bytes / element_bytes, n_whole = n_elems * element_bytes;
    for (int64_t byte = 0; byte < element_bytes; byte++)
        for (int64_t i = 0; i < n_elems; i++)
            out[byte * n_elems + i] = in[i * element_bytes + byte];
    memcpy(out + n_whole, in + n_whole, (size_t)(n_bytes - n_whole));
}

static bool applied(const struct H5Filters *filters, enum H5Stage stage, uint32_t left_out) {
    int position = filters->position[stage];
    return position >= 0 && !(left_out >> position & 1u);
}

bool h5_chunk_decode(const struct H5Filters *filters, uint32_t left_out, int64_t element_bytes,
                     unsigned char *out, unsigned char *scratch, int64_t n_out,
                     const unsigned char *in, int64_t n_in, struct Error *err) {
    if (applied(filters, H5_STAGE_FLETCHER32, left_out)) {
        n_in -= 4;
        if (n_in < 0 || fletcher32(in, n_in) != load_u32(in + n_in))
            return error_set(err, "the chunk's fletcher32 checksum is wrong");
    }
    bool shuffled = applied(filters, H5_STAGE_SHUFFLE, left_out) && element_bytes > 1;
    unsigned char *unpacked = shuffled ? scratch : out;
    if (applied(filters, H5_STAGE_ZSTD, left_out)) {
        if (!h5_zstd_decode(unpacked, n_out, in, n_in))
            return error_set(err, "the chunk does not decompress (zstd)");
    } else if (applied(filters, H5_STAGE_DEFLATE, left_out)) {
        if (!deflate_decode(unpacked, n_out, in, n_in))
            return error_set(err, "the chunk does not decompress (deflate)");
    } else {
        if (n_in != n_out)
            return error_set(err, "the chunk has %lld bytes instead of %lld", (long long)n_in,
                             (long long)n_out);
        memcpy(unpacked, in, (size_t)n_out);
    }
    if (shuffled) unshuffle(out, scratch, n_out, element_bytes);
    return true;
}

int64_t h5_chunk_encode(const struct H5Filters *filters, int zstd_level, int64_t element_bytes,
                        unsigned char *out, int64_t capacity, unsigned char *scratch,
                        const unsigned char *in, int64_t n_in) {
    bool packed = applied(filters, H5_STAGE_ZSTD, 0);
    TMD_CHECK(
        packed == applied(filters, H5_STAGE_SHUFFLE, 0) && !applied(filters, H5_STAGE_DEFLATE, 0) &&
            !applied(filters, H5_STAGE_FLETCHER32, 0) && capacity >= h5_chunk_stored_bound(n_in),
        "a chunk of an array that is not ours");
    if (!packed) {
        memcpy(out, in, (size_t)n_in);
        return n_in;
    }
    if (element_bytes > 1) {
        shuffle(scratch, in, n_in, element_bytes);
        in = scratch;
    }
    int64_t n_out = h5_zstd_encode(out, capacity, in, n_in, zstd_level);
    TMD_CHECK(n_out > 0, "zstd did not keep its bound");
    return n_out;
}
