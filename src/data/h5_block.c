/* Asks HDF5 for the address of a block once; fetching is then a read at an offset of the file, and
 * decoding is h5_chunk.h's. */
#include "data/h5_block.h"

#include <stdlib.h>

#include "data/file_io.h"
#include "data/h5_file.h"

int64_t h5_block_rows(const struct H5Array *array) {
    return array->chunk_rows > 0 ? array->chunk_rows : array->n_rows;
}

/* Addresses of chunks do not count a user block, in some versions of the library. */
static bool find_descriptor(const struct H5Array *array, int *descriptor, struct Error *err) {
    void *handle = NULL;
    hsize_t user_block = 0;
    hid_t file = H5Iget_file_id(array->dataset), list = H5Fget_create_plist(file);
    bool good = H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0 && handle &&
                H5Pget_userblock(list, &user_block) >= 0;
    if (good) *descriptor = *(int *)handle; /* of the plain driver, which h5_file.c asks for */
    H5Pclose(list);
    H5Fclose(file);
    if (!good) return h5_error(err, "its place in the file cannot be found");
    return user_block == 0 || error_set(err,
                                        "expected a file without a user block, got one of "
                                        "%llu bytes",
                                        (unsigned long long)user_block);
}

bool h5_block_begin(const struct H5Array *array, struct H5Block *block, struct Error *err) {
    bool chunked = array->chunk_rows > 0;
    h5_quiet();
    *block = (struct H5Block){
        .n_bytes = chunked ? array->chunk_bytes : array->n_rows * array->row_bytes,
        .element_bytes = h5_element_bytes(array->element),
        .filters = chunked ? array->filters : h5_filters_none(),
    };
    return find_descriptor(array, &block->descriptor, err);
}

static bool locate_chunk(const struct H5Array *array, int64_t chunk, struct H5Block *block,
                         struct Error *err) {
    hsize_t offset[H5_MAX_RANK] = {(hsize_t)(chunk * array->chunk_rows)}, n_stored = 0;
    haddr_t address = HADDR_UNDEF;
    if (H5Dget_chunk_info_by_coord(array->dataset, offset, &block->left_out, &address,
                                   &n_stored) < 0 ||
        address == HADDR_UNDEF)
        return h5_error(err, "chunk %lld cannot be found", (long long)chunk);
    if (n_stored == 0 || n_stored > (hsize_t)array->stored_capacity)
        return error_set(err, "chunk %lld claims %llu bytes", (long long)chunk,
                         (unsigned long long)n_stored);
    block->offset = (int64_t)address;
    block->n_stored = (int64_t)n_stored;
    return true;
}

static bool locate_whole(const struct H5Array *array, struct H5Block *block, struct Error *err) {
    haddr_t address = H5Dget_offset(array->dataset);
    if (address == HADDR_UNDEF)
        return error_set(err, "expected contiguous or chunked storage, got another one");
    block->offset = (int64_t)address;
    block->n_stored = block->n_bytes;
    return true;
}

bool h5_block_locate(const struct H5Array *array, int64_t number, struct H5Block *block,
                     struct Error *err) {
    return array->chunk_rows > 0 ? locate_chunk(array, number, block, err)
                                 : locate_whole(array, block, err);
}

static unsigned char *need(unsigned char **buffer, int64_t *capacity, int64_t n_bytes) {
    if (*capacity < n_bytes) {
        free(*buffer);
        *buffer = xmalloc((size_t)n_bytes);
        *capacity = n_bytes;
    }
    return *buffer;
}

bool h5_block_fetch(const struct H5Block *block, struct H5BlockBuffers *buffers, struct Error *err) {
    unsigned char *stored = need(&buffers->stored, &buffers->stored_bytes, block->n_stored);
    return file_read_at(block->descriptor, "the file", stored, block->n_stored, block->offset, err);
}

bool h5_block_decode(const struct H5Block *block, struct H5BlockBuffers *buffers, void *out,
                     struct Error *err) {
    unsigned char *scratch = need(&buffers->scratch, &buffers->scratch_bytes, block->n_bytes);
    return h5_chunk_decode(&block->filters, block->left_out, block->element_bytes, out, scratch,
                           block->n_bytes, buffers->stored, block->n_stored, err);
}

void h5_block_buffers_free(struct H5BlockBuffers *buffers) {
    free(buffers->stored);
    free(buffers->scratch);
    *buffers = (struct H5BlockBuffers){0};
}
