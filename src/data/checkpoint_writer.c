/* Streams tensors into the partial file; the manifest and the new name come last. */
#include "data/checkpoint_writer.h"

#include <stdlib.h>
#include <string.h>

#include "data/atomic_file.h"
#include "data/checkpoint_folder.h"
#include "data/checkpoint_table.h"
#include "data/checkpoint_writer_parts.h"
#include "data/crc32.h"
#include "data/h5_array.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"

/* ---- opening ---- */

static void free_writer(struct CkptWriter *w) {
    ckpt_contents_free(&w->contents);
    free(w->group_name);
    free(w->path);
    free(w->partial);
    free(w);
}

bool ckpt_writer_create(const char *path, const struct CkptHeader *header, int zstd_level,
                        struct CkptWriter **out, struct Error *err) {
    struct CkptWriter *w = xcalloc(sizeof *w);
    w->path = xstrdup(path);
    w->partial = atomic_file_partial(path);
    w->version = header->version;
    w->zstd_level = zstd_level;
    w->group = H5I_INVALID_HID;
    if (!h5_create(w->partial, &w->file, err)) {
        free_writer(w);
        return false;
    }
    if (!ckpt_set_text(w, CKPT_KEY_FORMAT, header->format, err) ||
        !ckpt_set_int(w, CKPT_KEY_VERSION, header->version, err) ||
        !ckpt_set_int(w, CKPT_KEY_ITERATION, header->iteration, err) ||
        !ckpt_set_text(w, CKPT_KEY_STAGE, header->stage, err)) {
        ckpt_writer_abandon(w);
        return false;
    }
    *out = w;
    return true;
}

bool ckpt_writer_open_path(const char *path, int64_t iteration, const char *stage, int zstd_level,
                           struct CkptWriter **out, struct Error *err) {
    const struct CkptHeader header = {CKPT_FORMAT, CKPT_VERSION_SINGLE, iteration, stage};
    return ckpt_writer_create(path, &header, zstd_level, out, err);
}

bool ckpt_writer_open(const char *folder, int64_t iteration, const char *stage, int zstd_level,
                      struct CkptWriter **out, struct Error *err) {
    enum { NO_SAVE = -1 };
    ckpt_folder_sweep(folder, NO_SAVE);
    char *path = ckpt_step_path(folder, iteration);
    bool opened = ckpt_writer_open_path(path, iteration, stage, zstd_level, out, err);
    free(path);
    return opened;
}

/* ---- tensors ---- */

/* Opens the group `name` below `parent`, creating it first if need be. */
static bool enter_group(hid_t parent, const char *name, hid_t *group, struct Error *err) {
    TMD_CHECK(ckpt_name_is_sane(name), "'%s' cannot name a group", name);
    if (h5_exists(parent, name)) return h5_open_object(parent, name, H5I_GROUP, group, err);
    return h5_create_group(parent, name, group, err);
}

static void leave_group(struct CkptWriter *w) {
    if (w->group >= 0) H5Gclose(w->group);
    w->group = H5I_INVALID_HID;
    free(w->group_name);
    w->group_name = NULL;
}

bool ckpt_writer_select_group(struct CkptWriter *w, const char *name, struct Error *err) {
    if (w->group_name && strcmp(w->group_name, name) == 0) return true;
    leave_group(w);
    const char *slash = strchr(name, '/');
    TMD_CHECK(slash, "group '%s' is not role/kind", name);
    char *role = xprintf("%.*s", (int)(slash - name), name);
    hid_t parent;
    bool entered = enter_group(w->file, role, &parent, err);
    if (entered) {
        entered = enter_group(parent, slash + 1, &w->group, err);
        H5Gclose(parent);
    }
    free(role);
    if (entered) w->group_name = xstrdup(name);
    return entered;
}

bool ckpt_writer_add_array(struct CkptWriter *w, const char *name, int n_dims, const int64_t *dims,
                           const float *data, const uint32_t *crc32, struct Error *err) {
    int64_t row_bytes = sizeof *data;
    for (int d = 1; d < n_dims; d++) row_bytes *= dims[d];
    struct H5Layout layout = {
        .element = DTYPE_F32,
        .rank = n_dims,
        .dims = dims,
        .chunk_rows = ckpt_chunk_rows(dims[0], row_bytes),
        .zstd_level = w->zstd_level,
    };
    struct H5Array array = {0};
    if (!h5_array_create(w->group, name, &layout, &array, err)) return false;
    bool written = h5_array_fill(&array, data, err) &&
                   (!crc32 || h5_attr_write_i64(array.dataset, CKPT_ATTR_CRC32, *crc32, err));
    h5_array_close(&array);
    return written && h5_check_written(w->file, w->partial, err);
}

void ckpt_writer_check_tensor(const char *name, int n_dims, const int64_t *shape) {
    TMD_CHECK(ckpt_name_is_sane(name), "'%s' cannot name a tensor", name);
    TMD_CHECK(n_dims >= 1 && n_dims <= CKPT_MAX_DIMS, "tensor '%s' of rank %d", name, n_dims);
    for (int d = 0; d < n_dims; d++)
        TMD_CHECK(shape[d] > 0, "tensor '%s': dimension %d is %lld", name, d, (long long)shape[d]);
}

bool ckpt_write_f32(struct CkptWriter *w, const char *group, const char *name, int n_dims,
                    const int64_t *shape, const float *data, struct Error *err) {
    ckpt_writer_check_tensor(name, n_dims, shape);
    TMD_CHECK(w->version == CKPT_VERSION_SINGLE, "a whole tensor in a sharded checkpoint");
    if (!ckpt_writer_select_group(w, group, err)) return false;
    struct CkptTensorInfo *tensor =
        ckpt_contents_add_tensor(&w->contents, group, name, n_dims, shape);
    tensor->crc32 = crc32_after(0, data, tensor->n_elems * (int64_t)sizeof *data);
    return ckpt_writer_add_array(w, name, n_dims, shape, data, &tensor->crc32, err);
}

/* ---- values ---- */

static struct CkptValue *add_value(struct CkptWriter *w, const char *key, enum CkptKind kind,
                                   const char *text) {
    TMD_CHECK(ckpt_name_is_sane(key) && !h5_attr_exists(w->file, key),
              "'%s' cannot be the key of a value, or was set before", key);
    return ckpt_contents_add_value(&w->contents, key, kind, text);
}

bool ckpt_set_int(struct CkptWriter *w, const char *key, int64_t value, struct Error *err) {
    add_value(w, key, CKPT_INT, NULL)->integer = value;
    return h5_attr_write_i64(w->file, key, value, err);
}

bool ckpt_set_real(struct CkptWriter *w, const char *key, double value, struct Error *err) {
    add_value(w, key, CKPT_REAL, NULL)->real = value;
    return h5_attr_write_double(w->file, key, value, err);
}

bool ckpt_set_text(struct CkptWriter *w, const char *key, const char *text, struct Error *err) {
    TMD_CHECK(strlen(text) < CKPT_MAX_TEXT, "the text of '%s' is too long", key);
    add_value(w, key, CKPT_TEXT, text);
    return h5_attr_write_text(w->file, key, text, err);
}

/* ---- ending ---- */

bool ckpt_writer_commit(struct CkptWriter *w, struct Error *err) {
    leave_group(w);
    ckpt_contents_sort(&w->contents);
    bool complete =
        w->version == CKPT_VERSION_SINGLE || ckpt_table_write(w->file, &w->contents, err);
    if (!complete ||
        !h5_attr_write_i64(w->file, CKPT_KEY_MANIFEST, ckpt_contents_manifest(&w->contents), err)) {
        ckpt_writer_abandon(w);
        return false;
    }
    bool committed = h5_commit(w->file, w->partial, w->path, err);
    free_writer(w);
    return committed;
}

void ckpt_writer_abandon(struct CkptWriter *w) {
    if (!w) return;
    leave_group(w);
    h5_discard(w->file, w->partial);
    free_writer(w);
}
