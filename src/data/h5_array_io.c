/* Reading and writing rows of an array that is open (h5_array.c opens). */
#include <stdlib.h>
#include <string.h>

#include "data/h5_array.h"
#include "data/h5_file.h"
#include "data/utf8.h"

static bool row_error(struct Error *err, const struct H5Array *array, int64_t row) {
    char *where = h5_where(array->dataset);
    error_prefix(err, "%s, row %lld", where, (long long)row);
    free(where);
    return false;
}

static bool check_rows(const struct H5Array *array, int64_t first_row, int64_t n_rows,
                       struct Error *err) {
    if (first_row >= 0 && n_rows >= 0 && first_row <= array->n_rows - n_rows) return true;
    char *where = h5_where(array->dataset);
    error_set(err, "%s: rows %lld to %lld asked for, there are %lld", where, (long long)first_row,
              (long long)(first_row + n_rows) - 1, (long long)array->n_rows);
    free(where);
    return false;
}

/* One H5Dread or H5Dwrite of whole rows; `out` or `in` is NULL. */
static bool transfer(const struct H5Array *array, int64_t first_row, int64_t n_rows, void *out,
                     const void *in, struct Error *err) {
    if (n_rows == 0) return true;
    hsize_t start[H5_MAX_RANK] = {(hsize_t)first_row}, count[H5_MAX_RANK] = {(hsize_t)n_rows};
    for (int i = 1; i < array->rank; i++) count[i] = (hsize_t)array->dims[i];
    hid_t file_space = H5Dget_space(array->dataset);
    hid_t memory_space = H5Screate_simple(array->rank, count, NULL); /* rank 0: a scalar */
    hid_t type = H5Dget_type(array->dataset);
    bool good = array->rank == 0 ||
                H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0;
    if (good && out)
        good = H5Dread(array->dataset, type, memory_space, file_space, H5P_DEFAULT, out) >= 0;
    if (good && in)
        good = H5Dwrite(array->dataset, type, memory_space, file_space, H5P_DEFAULT, in) >= 0;
    if (!good) h5_error(err, "cannot %s", out ? "read" : "write");
    H5Tclose(type);
    H5Sclose(memory_space);
    H5Sclose(file_space);
    return good || row_error(err, array, first_row);
}

/* Fetches the stored bytes of a chunk into array->stored. */
static bool fetch_chunk(struct H5Array *array, const hsize_t *offset, int64_t *n_stored,
                        uint32_t *left_out, struct Error *err) {
    hsize_t n_bytes = 0;
    if (H5Dget_chunk_storage_size(array->dataset, offset, &n_bytes) < 0)
        return h5_error(err, "cannot find the chunk");
    *n_stored = (int64_t)n_bytes;
    if (n_bytes == 0 || *n_stored > array->stored_capacity)
        return error_set(err, "the chunk claims %llu bytes", (unsigned long long)n_bytes);
    return H5Dread_chunk(array->dataset, H5P_DEFAULT, offset, left_out, array->stored) >= 0 ||
           h5_error(err, "cannot read the chunk");
}

static bool load_chunk(struct H5Array *array, int64_t chunk, struct Error *err) {
    if (array->decoded_chunk == chunk) return true;
    array->decoded_chunk = -1;
    hsize_t offset[H5_MAX_RANK] = {(hsize_t)(chunk * array->chunk_rows)};
    int64_t n_stored = 0;
    uint32_t left_out = 0;
    if (!fetch_chunk(array, offset, &n_stored, &left_out, err) ||
        !h5_chunk_decode(&array->filters, left_out, array->row_bytes / array->row_elems,
                         array->decoded, array->scratch, array->chunk_bytes, array->stored,
                         n_stored, err))
        return row_error(err, array, (int64_t)offset[0]);
    array->decoded_chunk = chunk;
    return true;
}

static bool read_chunked(struct H5Array *array, int64_t first_row, int64_t n_rows, void *out,
                         struct Error *err) {
    for (int64_t row = first_row, end = first_row + n_rows; row < end;) {
        int64_t chunk = row / array->chunk_rows, inside = row % array->chunk_rows;
        int64_t n = array->chunk_rows - inside < end - row ? array->chunk_rows - inside : end - row;
        if (!load_chunk(array, chunk, err)) return false;
        memcpy((char *)out + (row - first_row) * array->row_bytes,
               array->decoded + inside * array->row_bytes, (size_t)(n * array->row_bytes));
        row += n;
    }
    return true;
}

bool h5_array_read(struct H5Array *array, int64_t first_row, int64_t n_rows, void *out,
                   struct Error *err) {
    h5_quiet();
    TMD_CHECK(array->element != H5_TEXT, "texts are read one by one");
    if (!check_rows(array, first_row, n_rows, err)) return false;
    if (array->chunk_rows == 0) return transfer(array, first_row, n_rows, out, NULL, err);
    return read_chunked(array, first_row, n_rows, out, err);
}

bool h5_array_write(struct H5Array *array, int64_t first_row, int64_t n_rows, const void *in,
                    struct Error *err) {
    h5_quiet();
    array->decoded_chunk = -1;
    return check_rows(array, first_row, n_rows, err) &&
           transfer(array, first_row, n_rows, NULL, in, err);
}

/* Chunk number `chunk` of the array [n_rows, row_elems] at `in`; what the last chunk has beyond the
 * last row is zero. */
static bool write_chunk(struct H5Array *array, int64_t chunk, const unsigned char *in,
                        struct Error *err) {
    int64_t first_row = chunk * array->chunk_rows, left = array->n_rows - first_row;
    const unsigned char *rows = in + first_row * array->row_bytes;
    if (left < array->chunk_rows) {
        memset(array->decoded, 0, (size_t)array->chunk_bytes);
        memcpy(array->decoded, rows, (size_t)(left * array->row_bytes));
        rows = array->decoded;
    }
    hsize_t offset[H5_MAX_RANK] = {(hsize_t)first_row};
    int64_t n_stored = h5_chunk_encode(
        &array->filters, array->zstd_level, array->row_bytes / array->row_elems, array->stored,
        array->stored_capacity, array->scratch, rows, array->chunk_bytes);
    if (H5Dwrite_chunk(array->dataset, H5P_DEFAULT, 0, offset, (size_t)n_stored, array->stored) >=
        0)
        return true;
    h5_error(err, "cannot write the chunk");
    return row_error(err, array, first_row);
}

bool h5_array_fill(struct H5Array *array, const void *in, struct Error *err) {
    h5_quiet();
    array->decoded_chunk = -1;
    if (array->chunk_rows == 0) return transfer(array, 0, array->n_rows, NULL, in, err);
    for (int64_t chunk = 0; chunk * array->chunk_rows < array->n_rows; chunk++)
        if (!write_chunk(array, chunk, in, err)) return false;
    return true;
}

bool h5_array_append(struct H5Array *array, int64_t n_rows, const void *in, struct Error *err) {
    h5_quiet();
    hsize_t dims[H5_MAX_RANK];
    for (int i = 0; i < array->rank; i++) dims[i] = (hsize_t)array->dims[i];
    dims[0] += (hsize_t)n_rows;
    if (H5Dset_extent(array->dataset, dims) < 0) {
        h5_error(err, "cannot grow the array");
        return row_error(err, array, array->n_rows);
    }
    int64_t first_row = array->n_rows;
    array->n_rows = array->dims[0] = (int64_t)dims[0];
    return h5_array_write(array, first_row, n_rows, in, err);
}

/* The reference that stands for a text, as stored. */
static bool read_reference(struct H5Array *array, int64_t row, unsigned char *reference,
                           struct Error *err) {
    if (array->chunk_rows > 0) return read_chunked(array, row, 1, reference, err);
    haddr_t offset = H5Dget_offset(array->dataset);
    return (offset != HADDR_UNDEF &&
            h5_heap_pread(&array->heap, reference, array->row_bytes,
                          (int64_t)offset + row * array->row_bytes, err)) ||
           row_error(err, array, row);
}

bool h5_text_read(struct H5Array *array, int64_t row, int64_t max_bytes, char **text,
                  struct Error *err) {
    enum { MOST_REFERENCE_BYTES = 4 + 8 + 4 };
    unsigned char reference[MOST_REFERENCE_BYTES];
    h5_quiet();
    *text = NULL;
    TMD_CHECK(array->element == H5_TEXT && array->rank == 1, "not a list of texts");
    if (!check_rows(array, row, 1, err) || !read_reference(array, row, reference, err))
        return false;
    if (!h5_heap_read(&array->heap, reference, max_bytes, text, err))
        return row_error(err, array, row);
    if (utf8_valid(*text)) return true;
    free(*text);
    *text = NULL;
    error_set(err, "the text is not valid UTF-8");
    return row_error(err, array, row);
}

bool h5_text_append(struct H5Array *array, const char *text, struct Error *err) {
    TMD_CHECK(array->element == H5_TEXT && array->rank == 1, "not a list of texts");
    return h5_array_append(array, 1, &text, err);
}
