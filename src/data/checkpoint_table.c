/* Flat arrays of numbers: quick to read however many tensors there are, and easy to check. */
#include "data/checkpoint_table.h"

#include <stdlib.h>
#include <string.h>

#include "data/h5_array.h"
#include "data/h5_file.h"

#define GROUP "contents"
enum { PIECE_TENSOR, PIECE_SHARD, PIECE_BEGIN, PIECE_END, PIECE_COLUMNS };

/* A column of the table as it is stored: [n_rows, n_columns] elements; n_columns 0: a list. */
struct Column {
    const char *name;
    int element;
    int64_t n_columns;
    int64_t n_rows;
    void *values;
};

enum { NAMES, SHAPES, PIECES, CHUNKS, N_COLUMNS };

struct Table {
    struct Column columns[N_COLUMNS];
};

static struct Table empty_table(void) {
    return (struct Table){{
        [NAMES] = {.name = "names", .element = H5_U8},
        [SHAPES] = {.name = "shapes", .element = DTYPE_I64, .n_columns = CKPT_MAX_DIMS},
        [PIECES] = {.name = "pieces", .element = DTYPE_I64, .n_columns = PIECE_COLUMNS},
        [CHUNKS] = {.name = "chunk_crc32", .element = H5_U32},
    }};
}

static void free_table(struct Table *table) {
    for (int i = 0; i < N_COLUMNS; i++) free(table->columns[i].values);
}

/* ---- writing ---- */

static void *allocate(struct Column *column, int64_t n_rows) {
    int64_t n_elems = n_rows * (column->n_columns > 0 ? column->n_columns : 1);
    column->n_rows = n_rows;
    column->values = xcalloc((size_t)(n_elems * h5_element_bytes(column->element)) + 1);
    return column->values;
}

static void fill_names(struct Column *column, const struct CkptContents *contents) {
    int64_t n_bytes = 0;
    for (int64_t i = 0; i < contents->n_tensors; i++)
        n_bytes += (int64_t)(strlen(contents->tensors[i].group) +
                             strlen(contents->tensors[i].name) + strlen("/") + 1);
    char *at = allocate(column, n_bytes);
    for (int64_t i = 0; i < contents->n_tensors; i++) {
        at = stpcpy(at, contents->tensors[i].group);
        at = stpcpy(at, "/");
        at = stpcpy(at, contents->tensors[i].name) + 1;
    }
}

static void fill_shapes(struct Column *column, const struct CkptContents *contents) {
    int64_t *shapes = allocate(column, contents->n_tensors);
    for (int64_t i = 0; i < contents->n_tensors; i++)
        memcpy(shapes + i * CKPT_MAX_DIMS, contents->tensors[i].shape,
               sizeof contents->tensors[i].shape);
}

/* Pieces, and with them their chunks, in the order of the tensors. */
static void fill_pieces(struct Column *piece_column, struct Column *chunk_column,
                        const struct CkptContents *contents) {
    int64_t *row = allocate(piece_column, contents->n_pieces);
    uint32_t *chunks = allocate(chunk_column, contents->n_chunks);
    for (int64_t i = 0; i < contents->n_tensors; i++) {
        const struct CkptTensorInfo *tensor = &contents->tensors[i];
        for (int64_t p = 0; p < tensor->n_pieces; p++, row += PIECE_COLUMNS) {
            const struct CkptPiece *piece = &contents->pieces[tensor->first_piece + p];
            int64_t n_chunks = ckpt_piece_chunks(piece->end - piece->begin);
            row[PIECE_TENSOR] = i;
            row[PIECE_SHARD] = piece->shard;
            row[PIECE_BEGIN] = piece->begin;
            row[PIECE_END] = piece->end;
            memcpy(chunks, contents->chunk_crc32 + piece->first_chunk,
                   (size_t)n_chunks * sizeof *chunks);
            chunks += n_chunks;
        }
    }
}

static bool write_column(hid_t group, const struct Column *column, struct Error *err) {
    const int64_t dims[] = {column->n_rows, column->n_columns};
    struct H5Layout layout = {
        .element = column->element, .rank = column->n_columns > 0 ? 2 : 1, .dims = dims};
    struct H5Array array = {0};
    bool written = h5_array_create(group, column->name, &layout, &array, err) &&
                   h5_array_fill(&array, column->values, err);
    h5_array_close(&array);
    return written;
}

bool ckpt_table_write(hid_t file, const struct CkptContents *contents, struct Error *err) {
    struct Table table = empty_table();
    hid_t group;
    if (!h5_create_group(file, GROUP, &group, err)) return false;
    fill_names(&table.columns[NAMES], contents);
    fill_shapes(&table.columns[SHAPES], contents);
    fill_pieces(&table.columns[PIECES], &table.columns[CHUNKS], contents);
    bool written = true;
    for (int i = 0; written && i < N_COLUMNS; i++)
        written = write_column(group, &table.columns[i], err);
    free_table(&table);
    H5Gclose(group);
    return written;
}

/* ---- reading ---- */

static bool table_error(struct Error *err, const char *what, int64_t row) {
    return error_set(err, "its table of contents is damaged: %s %lld", what, (long long)row);
}

static bool read_column(hid_t group, struct Column *column, struct Error *err) {
    struct H5Array array = {0};
    if (!h5_array_open(group, column->name, &array, err)) return false;
    bool read =
        (array.element == column->element && array.chunk_rows == 0 &&
         array.rank == (column->n_columns > 0 ? 2 : 1) &&
         (column->n_columns == 0 || array.row_elems == column->n_columns)) ||
        error_set(err, "its table of contents has no '%s' of the expected kind", column->name);
    read = read && (array.n_rows <= H5_MAX_CHUNK_BYTES / array.row_bytes ||
                    error_set(err, "its table of contents is impossibly long: '%s' has %lld rows",
                              column->name, (long long)array.n_rows));
    read = read && h5_array_read(&array, 0, array.n_rows, allocate(column, array.n_rows), err);
    h5_array_close(&array);
    return read;
}

/* How many dimensions a row of `shapes` has; 0: it is damaged. */
static int count_dims(const int64_t *shape) {
    int n_dims = 0;
    int64_t n_bytes = sizeof(float);
    while (n_dims < CKPT_MAX_DIMS && shape[n_dims] > 0) {
        if (__builtin_mul_overflow(n_bytes, shape[n_dims], &n_bytes) || n_bytes > INT64_MAX / 2)
            return 0;
        n_dims++;
    }
    for (int d = n_dims; d < CKPT_MAX_DIMS; d++)
        if (shape[d] != 0) return 0;
    return n_dims;
}

/* "role/kind/name" cut in two; false: it is none. */
static bool add_tensor(struct CkptContents *contents, const char *path, const int64_t *shape) {
    int n_dims = count_dims(shape);
    const char *first = strchr(path, '/'), *second = first ? strchr(first + 1, '/') : NULL;
    if (!second || n_dims == 0) return false;
    char *role = xprintf("%.*s", (int)(first - path), path);
    char *kind = xprintf("%.*s", (int)(second - first - 1), first + 1);
    char *group = xprintf("%s/%s", role, kind);
    bool sane = ckpt_name_is_sane(role) && ckpt_name_is_sane(kind) && ckpt_name_is_sane(second + 1);
    if (sane) ckpt_contents_add_tensor(contents, group, second + 1, n_dims, shape);
    free(group);
    free(kind);
    free(role);
    return sane;
}

/* Where a tensor's pieces are in the table, and what is left of the chunks. */
struct Cursor {
    int64_t piece, chunk;
};

/* Adds the pieces of the tensor that was added last. */
static bool add_pieces(struct CkptContents *contents, const struct Table *table, int64_t n_shards,
                       struct Cursor *at, struct Error *err) {
    const struct CkptTensorInfo *tensor = &contents->tensors[contents->n_tensors - 1];
    const int64_t *pieces = table->columns[PIECES].values;
    const uint32_t *chunks = table->columns[CHUNKS].values;
    int64_t covered = 0, number = contents->n_tensors - 1;
    for (; at->piece < table->columns[PIECES].n_rows; at->piece++) {
        const int64_t *row = pieces + at->piece * PIECE_COLUMNS;
        if (row[PIECE_TENSOR] != number) break;
        int64_t begin = row[PIECE_BEGIN], end = row[PIECE_END];
        if (row[PIECE_SHARD] < 0 || row[PIECE_SHARD] >= n_shards || begin < covered ||
            begin >= end || end > tensor->n_elems ||
            ckpt_piece_chunks(end - begin) > table->columns[CHUNKS].n_rows - at->chunk)
            return table_error(err, "piece", at->piece);
        ckpt_contents_add_piece(contents, (int)row[PIECE_SHARD], begin, end, chunks + at->chunk);
        at->chunk += ckpt_piece_chunks(end - begin);
        covered = end;
    }
    return true;
}

static bool take_table(struct CkptContents *contents, const struct Table *table, int64_t n_shards,
                       struct Error *err) {
    const struct Column *names = &table->columns[NAMES], *shapes = &table->columns[SHAPES];
    const char *name = names->values, *end = name + names->n_rows;
    struct Cursor at = {0};
    for (int64_t i = 0; i < shapes->n_rows; i++) {
        const int64_t *shape = (const int64_t *)shapes->values + i * CKPT_MAX_DIMS;
        if (!memchr(name, 0, (size_t)(end - name)) || !add_tensor(contents, name, shape))
            return table_error(err, "tensor", i);
        if (!add_pieces(contents, table, n_shards, &at, err)) return false;
        name += strlen(name) + 1;
    }
    if (name != end) return table_error(err, "names beyond tensor", shapes->n_rows);
    if (at.piece < table->columns[PIECES].n_rows) return table_error(err, "piece", at.piece);
    return at.chunk == table->columns[CHUNKS].n_rows || table_error(err, "chunk", at.chunk);
}

bool ckpt_table_read(hid_t file, int64_t n_shards, struct CkptContents *contents,
                     struct Error *err) {
    struct Table table = empty_table();
    hid_t group;
    if (!h5_open_object(file, GROUP, H5I_GROUP, &group, err)) return false;
    bool read = true;
    for (int i = 0; read && i < N_COLUMNS; i++) read = read_column(group, &table.columns[i], err);
    read = read && take_table(contents, &table, n_shards, err);
    free_table(&table);
    H5Gclose(group);
    ckpt_contents_sort(contents);
    return read;
}

bool ckpt_table_is_whole(const struct CkptContents *contents, struct Error *err) {
    for (int64_t i = 0; i < contents->n_tensors; i++) {
        const struct CkptTensorInfo *tensor = &contents->tensors[i];
        int64_t covered = 0;
        for (int64_t p = 0; p < tensor->n_pieces; p++) {
            const struct CkptPiece *piece = &contents->pieces[tensor->first_piece + p];
            if (piece->begin != covered) break;
            covered = piece->end;
        }
        if (covered != tensor->n_elems)
            return error_set(err,
                             "the pieces of tensor %s/%s do not cover it: expected element %lld of "
                             "%lld next",
                             tensor->group, tensor->name, (long long)covered,
                             (long long)tensor->n_elems);
    }
    return true;
}
