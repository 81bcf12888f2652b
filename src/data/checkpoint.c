/* Opens checkpoints, answers what is in them, reads their tensors. */
#include "data/checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/checkpoint_contents.h"
#include "data/checkpoint_walk.h"
#include "data/h5_array.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"
#include "data/shape_text.h"

struct Ckpt {
    char *path;
    hid_t file;
    int64_t iteration;
    char *stage;
    struct CkptContents contents; /* without the values of the format itself */
};

/* ---- opening ---- */

/* Is it ours, and of a version that we know? */
static bool check_format(const struct Ckpt *ckpt, struct Error *err) {
    const struct CkptValue *format = ckpt_contents_find_value(&ckpt->contents, CKPT_KEY_FORMAT);
    const struct CkptValue *version = ckpt_contents_find_value(&ckpt->contents, CKPT_KEY_VERSION);
    if (!format || format->kind != CKPT_TEXT || strcmp(format->text, CKPT_FORMAT) != 0 ||
        !version || version->kind != CKPT_INT)
        return error_set(err,
                         "not a checkpoint of this program: it has no attribute '" CKPT_KEY_FORMAT
                         "' of value '" CKPT_FORMAT "'");
    if (version->integer != CKPT_FORMAT_VERSION)
        return error_set(err, "is of format version %lld, this program reads version %d",
                         (long long)version->integer, CKPT_FORMAT_VERSION);
    return true;
}

static bool check_manifest(struct Ckpt *ckpt, struct Error *err) {
    int64_t stored;
    if (!h5_attr_exists(ckpt->file, CKPT_KEY_MANIFEST))
        return error_set(err, "was never finished: it has no attribute '" CKPT_KEY_MANIFEST "'");
    if (!h5_attr_read_i64(ckpt->file, CKPT_KEY_MANIFEST, &stored, err)) return false;
    uint32_t found = ckpt_contents_manifest(&ckpt->contents);
    return stored == (int64_t)found || error_set(err,
                                                 "is damaged: names, shapes, values and checksums "
                                                 "have manifest %08x, stored is %08llx",
                                                 found, (unsigned long long)stored);
}

/* Takes the values of the format itself out of the list that users see. */
static bool take_own_values(struct Ckpt *ckpt, struct Error *err) {
    const char *stage;
    if (!ckpt_get_int(ckpt, CKPT_KEY_ITERATION, &ckpt->iteration, err) ||
        !ckpt_get_text(ckpt, CKPT_KEY_STAGE, &stage, err))
        return false;
    ckpt->stage = xstrdup(stage);
    struct CkptContents *contents = &ckpt->contents;
    int64_t n = 0;
    for (int64_t i = 0; i < contents->n_values; i++) {
        struct CkptValue *value = &contents->values[i];
        bool own =
            strcmp(value->key, CKPT_KEY_FORMAT) == 0 || strcmp(value->key, CKPT_KEY_VERSION) == 0 ||
            strcmp(value->key, CKPT_KEY_ITERATION) == 0 || strcmp(value->key, CKPT_KEY_STAGE) == 0;
        if (own) {
            free((char *)value->key);
            free((char *)value->text);
        } else {
            contents->values[n++] = *value;
        }
    }
    contents->n_values = n;
    return true;
}

bool ckpt_open(const char *path, struct Ckpt **out, struct Error *err) {
    struct Ckpt *ckpt = xcalloc(sizeof *ckpt);
    ckpt->path = xstrdup(path);
    if (!h5_open_read(path, &ckpt->file, err)) {
        ckpt_close(ckpt);
        return false;
    }
    bool opened = ckpt_walk_values(ckpt->file, &ckpt->contents, err) && check_format(ckpt, err) &&
                  ckpt_walk_tensors(ckpt->file, &ckpt->contents, err) &&
                  check_manifest(ckpt, err) && take_own_values(ckpt, err);
    if (!opened) {
        ckpt_close(ckpt);
        return error_prefix(err, "checkpoint %s", path);
    }
    *out = ckpt;
    return true;
}

void ckpt_close(struct Ckpt *ckpt) {
    if (!ckpt) return;
    if (ckpt->file > 0) H5Fclose(ckpt->file);
    ckpt_contents_free(&ckpt->contents);
    free(ckpt->stage);
    free(ckpt->path);
    free(ckpt);
}

/* ---- what is in it ---- */

const char *ckpt_path(const struct Ckpt *ckpt) {
    return ckpt->path;
}

int64_t ckpt_iteration(const struct Ckpt *ckpt) {
    return ckpt->iteration;
}

const char *ckpt_stage(const struct Ckpt *ckpt) {
    return ckpt->stage;
}

int64_t ckpt_value_count(const struct Ckpt *ckpt) {
    return ckpt->contents.n_values;
}

const struct CkptValue *ckpt_value(const struct Ckpt *ckpt, int64_t i) {
    TMD_CHECK(i >= 0 && i < ckpt->contents.n_values, "value %lld", (long long)i);
    return &ckpt->contents.values[i];
}

bool ckpt_has(const struct Ckpt *ckpt, const char *key) {
    return ckpt_contents_find_value(&ckpt->contents, key) != NULL;
}

static const struct CkptValue *get_value(const struct Ckpt *ckpt, const char *key,
                                         enum CkptKind kind, struct Error *err) {
    static const char *const kinds[] = {"an integer", "a number", "a text"};
    const struct CkptValue *value = ckpt_contents_find_value(&ckpt->contents, key);
    if (!value) {
        error_set(err, "checkpoint %s: has no value '%s'", ckpt->path, key);
    } else if (value->kind != kind) {
        error_set(err, "checkpoint %s: value '%s' is %s, not %s", ckpt->path, key,
                  kinds[value->kind], kinds[kind]);
        value = NULL;
    }
    return value;
}

bool ckpt_get_int(const struct Ckpt *ckpt, const char *key, int64_t *value, struct Error *err) {
    const struct CkptValue *found = get_value(ckpt, key, CKPT_INT, err);
    if (found) *value = found->integer;
    return found != NULL;
}

bool ckpt_get_real(const struct Ckpt *ckpt, const char *key, double *value, struct Error *err) {
    const struct CkptValue *found = get_value(ckpt, key, CKPT_REAL, err);
    if (found) *value = found->real;
    return found != NULL;
}

bool ckpt_get_text(const struct Ckpt *ckpt, const char *key, const char **text, struct Error *err) {
    const struct CkptValue *found = get_value(ckpt, key, CKPT_TEXT, err);
    if (found) *text = found->text;
    return found != NULL;
}

int64_t ckpt_count(const struct Ckpt *ckpt) {
    return ckpt->contents.n_tensors;
}

const struct CkptTensorInfo *ckpt_info(const struct Ckpt *ckpt, int64_t i) {
    TMD_CHECK(i >= 0 && i < ckpt->contents.n_tensors, "tensor %lld", (long long)i);
    return &ckpt->contents.tensors[i];
}

int64_t ckpt_find(const struct Ckpt *ckpt, const char *group, const char *name) {
    return ckpt_contents_find_tensor(&ckpt->contents, group, name);
}

int64_t ckpt_group(const struct Ckpt *ckpt, const char *group, int64_t *first) {
    int64_t n = 0;
    for (int64_t i = 0; i < ckpt->contents.n_tensors; i++) {
        if (strcmp(ckpt->contents.tensors[i].group, group) != 0) continue;
        if (n++ == 0) *first = i;
    }
    return n;
}

/* ---- reading ---- */

static bool check_finite(const float *values, int64_t n_elems, struct Error *err) {
    for (int64_t i = 0; i < n_elems; i++) {
        if (!isfinite(values[i])) return error_set(err, "contains a value that is not finite");
    }
    return true;
}

/* Reads the rows of a tensor, as many at a time as a chunk has: all into `out` one after the other,
 * or, if `reuse`, each time to its start. */
static bool read_rows(struct H5Array *array, const struct CkptTensorInfo *tensor, bool reuse,
                      bool allow_nonfinite, float *out, struct Error *err) {
    int64_t step = array->chunk_rows > 0 ? array->chunk_rows : array->n_rows;
    uint32_t crc32 = 0;
    for (int64_t row = 0; row < array->n_rows; row += step) {
        int64_t left = array->n_rows - row, n = left < step ? left : step;
        float *to = reuse ? out : out + row * array->row_elems;
        if (!h5_array_read(array, row, n, to, err) ||
            (!allow_nonfinite && !check_finite(to, n * array->row_elems, err)))
            return false;
        crc32 = ckpt_crc32(crc32, to, n * array->row_bytes);
    }
    return crc32 == tensor->crc32 ||
           error_set(err, "is damaged: its checksum is %08x, stored is %08x", crc32, tensor->crc32);
}

/* `out` NULL: only checks, through a buffer of one chunk. */
static bool read_tensor(struct Ckpt *ckpt, const struct CkptTensorInfo *tensor,
                        bool allow_nonfinite, float *out, struct Error *err) {
    struct H5Array array = {0};
    char *name = xprintf("%s/%s", tensor->group, tensor->name);
    bool read = h5_array_open(ckpt->file, name, &array, err);
    if (read) {
        int64_t n_rows = array.chunk_rows > 0 ? array.chunk_rows : array.n_rows;
        float *rows = out ? out : xmalloc((size_t)(n_rows * array.row_bytes));
        read = read_rows(&array, tensor, !out, allow_nonfinite, rows, err);
        if (!out) free(rows);
    }
    h5_array_close(&array);
    if (!read) error_prefix(err, "checkpoint %s: tensor %s", ckpt->path, name);
    free(name);
    return read;
}

bool ckpt_read_f32(struct Ckpt *ckpt, const char *group, const char *name, int n_dims,
                   const int64_t *shape, bool allow_nonfinite, float *out, struct Error *err) {
    int64_t i = ckpt_find(ckpt, group, name);
    if (i < 0) return error_set(err, "checkpoint %s: has no tensor %s/%s", ckpt->path, group, name);
    const struct CkptTensorInfo *tensor = ckpt_info(ckpt, i);
    if (!shape_equal(n_dims, shape, tensor->n_dims, tensor->shape))
        return error_set(err, "checkpoint %s: tensor %s/%s: expected shape %s, got %s", ckpt->path,
                         group, name, shape_text(n_dims, shape).s,
                         shape_text(tensor->n_dims, tensor->shape).s);
    return read_tensor(ckpt, tensor, allow_nonfinite, out, err);
}

bool ckpt_verify(struct Ckpt *ckpt, struct Error *err) {
    for (int64_t i = 0; i < ckpt_count(ckpt); i++) {
        if (!read_tensor(ckpt, ckpt_info(ckpt, i), true, NULL, err)) return false;
    }
    return true;
}
