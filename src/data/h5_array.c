/* Opening and creating arrays: everything in the file's header is checked here, so that reading and
 * writing (h5_array_io.c) can rely on it. */
#include "data/h5_array.h"

#include <stdlib.h>
#include <string.h>

#include "data/h5_file.h"
#include "data/h5_zstd.h"

/* Bytes of one element in the file. */
static int64_t stored_bytes(hid_t location, int element) {
    return element == H5_TEXT ? h5_heap_reference_bytes(location) : h5_element_bytes(element);
}

/* Rank, dimensions and the bytes of a row; none of their products overflows afterwards. */
static bool read_shape(struct H5Array *array, const char *where, struct Error *err) {
    hid_t space = H5Dget_space(array->dataset);
    hsize_t dims[H5_MAX_RANK] = {0};
    bool simple = H5Sis_simple(space) > 0 && H5Sget_simple_extent_type(space) != H5S_NULL;
    int rank = simple ? H5Sget_simple_extent_ndims(space) : -1;
    bool fits =
        rank >= 0 && rank <= H5_MAX_RANK && H5Sget_simple_extent_dims(space, dims, NULL) >= 0;
    H5Sclose(space);
    if (!fits)
        return error_set(err, "%s: expected an array of at most %d dimensions", where, H5_MAX_RANK);
    array->rank = rank;
    array->n_rows = array->row_elems = 1;
    bool overflow = false;
    for (int i = 0; i < rank; i++) {
        array->dims[i] = (int64_t)dims[i];
        if (i == 0)
            array->n_rows = array->dims[0];
        else
            overflow |= dims[i] == 0 ||
                        __builtin_mul_overflow(array->row_elems, array->dims[i], &array->row_elems);
        overflow |= array->dims[i] < 0;
    }
    int64_t n_bytes;
    overflow =
        overflow ||
        __builtin_mul_overflow(array->row_elems, stored_bytes(array->dataset, array->element),
                               &array->row_bytes) ||
        __builtin_mul_overflow(array->row_bytes, array->n_rows, &n_bytes);
    return !overflow || error_set(err, "%s has impossible dimensions", where);
}

/* A chunk must hold whole rows and be of bearable length. */
static bool read_chunking(struct H5Array *array, hid_t list, const char *where, struct Error *err) {
    hsize_t chunk[H5_MAX_RANK] = {0};
    if (array->rank < 1 || H5Pget_chunk(list, H5_MAX_RANK, chunk) != array->rank)
        return error_set(err, "%s has a damaged chunk shape", where);
    for (int i = 1; i < array->rank; i++)
        if ((int64_t)chunk[i] != array->dims[i])
            return error_set(err,
                             "%s: expected chunks of whole rows (%lld along dimension %d), got "
                             "%lld",
                             where, (long long)array->dims[i], i, (long long)chunk[i]);
    array->chunk_rows = (int64_t)chunk[0];
    if (array->chunk_rows < 1 ||
        __builtin_mul_overflow(array->chunk_rows, array->row_bytes, &array->chunk_bytes) ||
        array->chunk_bytes > H5_MAX_CHUNK_BYTES)
        return error_set(err, "%s: expected chunks of at most %lld bytes", where,
                         (long long)H5_MAX_CHUNK_BYTES);
    if (!h5_filters_read(list, &array->filters, err)) return error_prefix(err, "%s", where);
    return true;
}

/* A header can claim any length; storage that is really there bounds it by the length of the file.
 */
static bool check_storage(const struct H5Array *array, const char *where, struct Error *err) {
    if (array->n_rows == 0) return true;
    if (array->chunk_rows == 0) {
        int64_t n_bytes = (int64_t)H5Dget_storage_size(array->dataset);
        return n_bytes == array->n_rows * array->row_bytes ||
               error_set(err, "%s: expected %lld rows, but %lld bytes are stored", where,
                         (long long)array->n_rows, (long long)n_bytes);
    }
    hsize_t n_found = 0;
    int64_t n_chunks = array->n_rows / array->chunk_rows + (array->n_rows % array->chunk_rows > 0);
    hid_t space = H5Dget_space(array->dataset);
    bool counted = H5Dget_num_chunks(array->dataset, space, &n_found) >= 0;
    H5Sclose(space);
    if (!counted) return h5_error(err, "%s has a damaged chunk index", where);
    return (int64_t)n_found == n_chunks ||
           error_set(err, "%s: expected %lld chunks, %lld are stored", where, (long long)n_chunks,
                     (long long)n_found);
}

static bool read_layout(struct H5Array *array, const char *where, struct Error *err) {
    hid_t list = H5Dget_create_plist(array->dataset);
    H5D_layout_t layout = H5Pget_layout(list);
    bool good;
    if (list < 0 || layout == H5D_LAYOUT_ERROR)
        good = h5_error(err, "%s has a damaged header", where);
    else if (H5Pget_external_count(list) != 0)
        good = error_set(err, "%s is stored in other files, which are never opened", where);
    else if (layout != H5D_CHUNKED && layout != H5D_CONTIGUOUS && layout != H5D_COMPACT)
        good = error_set(err, "%s is a virtual dataset, which is never followed", where);
    else if (array->element == H5_TEXT && layout == H5D_COMPACT)
        good = error_set(err, "%s: expected texts in contiguous or chunked storage", where);
    else
        good = layout != H5D_CHUNKED || read_chunking(array, list, where, err);
    H5Pclose(list);
    return good && check_storage(array, where, err);
}

static void allocate_buffers(struct H5Array *array) {
    if (array->chunk_rows == 0) return;
    array->stored_capacity = h5_chunk_stored_bound(array->chunk_bytes);
    array->stored = xmalloc((unsigned long)array->stored_capacity);
    array->decoded = xmalloc((unsigned long)array->chunk_bytes);
    array->scratch = xmalloc((unsigned long)array->chunk_bytes);
}

bool h5_array_open(hid_t location, const char *name, struct H5Array *array, struct Error *err) {
    *array = (struct H5Array){.dataset = H5I_INVALID_HID, .decoded_chunk = -1};
    if (!h5_open_object(location, name, H5I_DATASET, &array->dataset, err)) return false;
    char *where = h5_where(array->dataset);
    array->element = h5_element_of(array->dataset);
    bool good = array->element != H5_ELEMENT_COUNT ||
                error_set(err,
                          "%s: expected little-endian elements of type f32, f16, bf16, f64, "
                          "i64, u8, u32 or text, got another type",
                          where);
    good = good && read_shape(array, where, err) && read_layout(array, where, err);
    if (good && array->element == H5_TEXT)
        good = h5_heap_open(&array->heap, array->dataset, err) || error_prefix(err, "%s", where);
    free(where);
    if (good)
        allocate_buffers(array);
    else
        h5_array_close(array);
    return good;
}

/* Creation properties.  Times are left out, so that equal contents make equal files. */
static hid_t creation_list(const struct H5Array *array, int zstd_level) {
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    bool good = list >= 0 && H5Pset_obj_track_times(list, false) >= 0;
    if (good && array->chunk_rows > 0) {
        hsize_t chunk[H5_MAX_RANK] = {(hsize_t)array->chunk_rows};
        for (int i = 1; i < array->rank; i++) chunk[i] = (hsize_t)array->dims[i];
        good = H5Pset_chunk(list, array->rank, chunk) >= 0;
        if (good && zstd_level > 0)
            good = H5Pset_shuffle(list) >= 0 && h5_zstd_set(list, zstd_level);
    }
    TMD_CHECK(good, "HDF5 refused the creation properties of an array");
    return list;
}

/* HDF5's cache must hold a chunk that is filled by several appends, or each would recompress it. */
static hid_t cache_list(const struct H5Array *array) {
    enum { SLOTS = 521, USUAL_BYTES = 1 << 20 };
    size_t n_bytes = (size_t)array->chunk_bytes;
    hid_t list = H5Pcreate(H5P_DATASET_ACCESS);
    TMD_CHECK(list >= 0 &&
                  H5Pset_chunk_cache(list, SLOTS, n_bytes > USUAL_BYTES ? n_bytes : USUAL_BYTES,
                                     1.0) >= 0,
              "HDF5 refused a chunk cache");
    return list;
}

static hid_t create_space(const struct H5Array *array) {
    if (array->rank == 0) return H5Screate(H5S_SCALAR);
    hsize_t dims[H5_MAX_RANK], max_dims[H5_MAX_RANK];
    for (int i = 0; i < array->rank; i++) dims[i] = max_dims[i] = (hsize_t)array->dims[i];
    if (array->chunk_rows > 0) max_dims[0] = H5S_UNLIMITED;
    return H5Screate_simple(array->rank, dims, max_dims);
}

/* The struct of a new array; its dataset does not exist yet. */
static bool plan_array(struct H5Array *array, hid_t location, const char *name,
                       const struct H5Layout *layout, struct Error *err) {
    TMD_CHECK(layout->rank <= H5_MAX_RANK && (layout->rank > 0 || layout->chunk_rows == 0),
              "'%s': %d dimensions", name, layout->rank);
    *array = (struct H5Array){.dataset = H5I_INVALID_HID,
                              .element = layout->element,
                              .rank = layout->rank,
                              .n_rows = layout->rank ? layout->dims[0] : 1,
                              .row_elems = 1,
                              .chunk_rows = layout->chunk_rows,
                              .zstd_level = layout->zstd_level,
                              .decoded_chunk = -1};
    for (int i = 0; i < layout->rank; i++) array->dims[i] = layout->dims[i];
    bool fits = true;
    for (int i = 1; i < layout->rank; i++)
        fits =
            fits && !__builtin_mul_overflow(array->row_elems, layout->dims[i], &array->row_elems);
    fits = fits &&
           !__builtin_mul_overflow(array->row_elems, stored_bytes(location, layout->element),
                                   &array->row_bytes) &&
           !__builtin_mul_overflow(array->chunk_rows, array->row_bytes, &array->chunk_bytes) &&
           array->chunk_bytes <= H5_MAX_CHUNK_BYTES;
    return fits || error_set(err, "'%s': a chunk may have %lld bytes at most", name,
                             (long long)H5_MAX_CHUNK_BYTES);
}

bool h5_array_create(hid_t location, const char *name, const struct H5Layout *layout,
                     struct H5Array *array, struct Error *err) {
    h5_quiet();
    if (!plan_array(array, location, name, layout, err)) return false;
    char *where = h5_where(location);
    hid_t type = h5_element_type(layout->element), space = create_space(array);
    hid_t creation = creation_list(array, layout->zstd_level), cache = cache_list(array);
    array->dataset = H5Dcreate2(location, name, type, space, H5P_DEFAULT, creation, cache);
    bool good = array->dataset >= 0 || h5_error(err, "cannot create '%s' in %s", name, where);
    good = good && h5_filters_read(creation, &array->filters, err) &&
           h5_element_mark(array->dataset, layout->element, err);
    H5Pclose(cache);
    H5Pclose(creation);
    H5Sclose(space);
    H5Tclose(type);
    free(where);
    if (good)
        allocate_buffers(array);
    else
        h5_array_close(array);
    return good;
}

void h5_array_close(struct H5Array *array) {
    h5_quiet();
    if (array->dataset > 0) H5Dclose(array->dataset);
    free(array->stored);
    free(array->decoded);
    free(array->scratch);
    h5_heap_close(&array->heap);
    *array = (struct H5Array){.dataset = H5I_INVALID_HID, .decoded_chunk = -1};
}
