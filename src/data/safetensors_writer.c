/* Lays out the declared tensors over one or more files, writes them in place, publishes all. */
#include "data/safetensors_writer.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/atomic_file.h"
#include "data/file_io.h"
#include "data/json_file.h"

enum { CHUNK_ELEMS = 1 << 17 };

struct Tensor {
    char *name;
    enum Dtype dtype;
    int n_dims;
    int64_t shape[SAFETENSORS_MAX_DIMS], n_elems, n_bytes;
    int file;
    int64_t begin; /* within the data of its file */
    bool written;
};

struct OutputFile {
    char *path, *partial;
    int fd;
    int64_t data_start;
};

struct SafetensorsWriter {
    char *folder, *stem;     /* of a sharded writer, otherwise NULL */
    char *path;              /* of a single file, otherwise NULL */
    int64_t max_shard_bytes; /* INT64_MAX: no limit */
    json_t *metadata;
    struct Tensor *tensors; /* ascending by name once laid out */
    int64_t n_tensors, capacity;
    struct OutputFile *files; /* NULL until the first write */
    int n_files;
};

/* ---- declaring ---- */

struct SafetensorsWriter *safetensors_writer_new(const char *path) {
    struct SafetensorsWriter *w = xcalloc(sizeof *w);
    w->path = xstrdup(path);
    w->max_shard_bytes = INT64_MAX;
    w->metadata = json_object();
    return w;
}

struct SafetensorsWriter *safetensors_writer_new_sharded(const char *folder, const char *stem,
                                                         int64_t max_shard_bytes) {
    TMD_CHECK(max_shard_bytes > 0, "%lld bytes per shard", (long long)max_shard_bytes);
    struct SafetensorsWriter *w = xcalloc(sizeof *w);
    w->folder = xstrdup(folder);
    w->stem = xstrdup(stem);
    w->max_shard_bytes = max_shard_bytes;
    w->metadata = json_object();
    return w;
}

void safetensors_writer_metadata(struct SafetensorsWriter *w, const char *key, const char *value) {
    TMD_CHECK(!w->files, "metadata '%s' after the header was written", key);
    TMD_CHECK(json_object_set_new(w->metadata, key, json_string(value)) == 0,
              "metadata '%s' is not UTF-8", key);
}

void safetensors_writer_declare(struct SafetensorsWriter *w, const char *name, enum Dtype dtype,
                                int n_dims, const int64_t *shape) {
    TMD_CHECK(!w->files, "tensor '%s' declared after the header was written", name);
    TMD_CHECK(n_dims >= 0 && n_dims <= SAFETENSORS_MAX_DIMS, "tensor '%s' of rank %d", name,
              n_dims);
    if (w->n_tensors == w->capacity) {
        w->capacity = w->capacity ? 2 * w->capacity : 64;
        w->tensors = xrealloc(w->tensors, (size_t)w->capacity * sizeof *w->tensors);
    }
    struct Tensor *tensor = &w->tensors[w->n_tensors++];
    *tensor =
        (struct Tensor){.name = xstrdup(name), .dtype = dtype, .n_dims = n_dims, .n_elems = 1};
    for (int d = 0; d < n_dims; d++) {
        TMD_CHECK(shape[d] >= 0, "tensor '%s': dimension %d is %lld", name, d, (long long)shape[d]);
        tensor->shape[d] = shape[d];
        tensor->n_elems *= shape[d];
    }
    tensor->n_bytes = tensor->n_elems * dtype_bytes(dtype);
}

/* ---- laying out ---- */

static int compare_names(const void *left, const void *right) {
    return strcmp(((const struct Tensor *)left)->name, ((const struct Tensor *)right)->name);
}

/* By file, then in the order of the data: wide elements first, so that all are aligned. */
static int compare_places(const void *left, const void *right) {
    const struct Tensor *a = left, *b = right;
    if (a->file != b->file) return a->file - b->file;
    int64_t by_width = dtype_bytes(b->dtype) - dtype_bytes(a->dtype);
    return by_width ? (int)by_width : compare_names(a, b);
}

/* Fills files with whole tensors, in the order of names; returns how many it takes, at least 1. */
static int assign_files(struct SafetensorsWriter *w) {
    int64_t filled = 0;
    int file = 0;
    for (int64_t i = 0; i < w->n_tensors; i++) {
        struct Tensor *tensor = &w->tensors[i];
        if (filled > 0 && tensor->n_bytes > w->max_shard_bytes - filled) {
            file++;
            filled = 0;
        }
        tensor->file = file;
        filled += tensor->n_bytes;
    }
    return file + 1;
}

static char *file_path(const struct SafetensorsWriter *w, int file) {
    if (w->path) return xstrdup(w->path);
    if (w->n_files == 1) return xprintf("%s/%s.safetensors", w->folder, w->stem);
    return xprintf("%s/%s-%05d-of-%05d.safetensors", w->folder, w->stem, file + 1, w->n_files);
}

/* The header of file f, in fresh memory; sets `begin` of its tensors, which are sorted by place. */
static char *make_header(struct SafetensorsWriter *w, int f) {
    json_t *root = json_object();
    int64_t end = 0;
    if (json_object_size(w->metadata) > 0) json_object_set(root, "__metadata__", w->metadata);
    for (int64_t i = 0; i < w->n_tensors; i++) {
        struct Tensor *tensor = &w->tensors[i];
        if (tensor->file != f) continue;
        tensor->begin = end;
        end += tensor->n_bytes;
        char dtype[8] = "";
        for (int c = 0; dtype_name(tensor->dtype)[c]; c++)
            dtype[c] = (char)toupper((unsigned char)dtype_name(tensor->dtype)[c]);
        json_t *shape = json_array();
        for (int d = 0; d < tensor->n_dims; d++)
            json_array_append_new(shape, json_integer(tensor->shape[d]));
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape,
                                  "data_offsets", (json_int_t)tensor->begin, (json_int_t)end);
        TMD_CHECK(entry && !json_object_get(root, tensor->name) &&
                      json_object_set_new(root, tensor->name, entry) == 0,
                  "tensor name '%s' is not UTF-8 or used twice", tensor->name);
    }
    char *text = json_dumps(root, JSON_COMPACT);
    TMD_CHECK(text, "the header of %s cannot be formed", w->files[f].path);
    json_decref(root);
    return text;
}

/* ---- files ---- */

static bool write_bytes(const struct OutputFile *file, const void *bytes, int64_t n_bytes,
                        int64_t offset, struct Error *err) {
    return file_write_at(file->fd, file->partial, bytes, n_bytes, offset, err);
}

static bool write_header(struct SafetensorsWriter *w, int f, struct Error *err) {
    struct OutputFile *file = &w->files[f];
    char *json = make_header(w, f);
    int64_t n_json = (int64_t)strlen(json), n_header = (n_json + 7) / 8 * 8;
    unsigned char raw[8];
    for (int i = 0; i < 8; i++) raw[i] = (unsigned char)(n_header >> 8 * i);
    file->data_start = 8 + n_header;
    file->fd = open(file->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool written = file->fd >= 0 ||
                   error_set(err, "%s: cannot be created: %s", file->partial, strerror(errno));
    written = written && write_bytes(file, raw, 8, 0, err) &&
              write_bytes(file, json, n_json, 8, err) &&
              write_bytes(file, "       ", n_header - n_json, 8 + n_json, err);
    free(json);
    return written;
}

/* Creates all files with their headers: on the first write, or on a commit without any. */
static bool begin_files(struct SafetensorsWriter *w, struct Error *err) {
    if (w->files) return true;
    if (w->n_tensors > 0)
        qsort(w->tensors, (size_t)w->n_tensors, sizeof *w->tensors, compare_names);
    w->n_files = assign_files(w);
    w->files = xcalloc((size_t)w->n_files * sizeof *w->files);
    for (int f = 0; f < w->n_files; f++) {
        w->files[f].path = file_path(w, f);
        w->files[f].partial = atomic_file_partial(w->files[f].path);
        w->files[f].fd = -1;
    }
    if (w->n_tensors > 0)
        qsort(w->tensors, (size_t)w->n_tensors, sizeof *w->tensors, compare_places);
    for (int f = 0; f < w->n_files; f++) {
        if (!write_header(w, f, err)) return false;
    }
    if (w->n_tensors > 0)
        qsort(w->tensors, (size_t)w->n_tensors, sizeof *w->tensors, compare_names);
    return true;
}

/* ---- data ---- */

static struct Tensor *begin_tensor(struct SafetensorsWriter *w, const char *name,
                                   struct Error *err) {
    if (!begin_files(w, err)) return NULL;
    struct Tensor key = {.name = (char *)name};
    struct Tensor *tensor =
        w->n_tensors ? bsearch(&key, w->tensors, (size_t)w->n_tensors, sizeof key, compare_names)
                     : NULL;
    TMD_CHECK(tensor && !tensor->written, "tensor '%s' was not declared, or is written twice",
              name);
    tensor->written = true;
    return tensor;
}

static int64_t elem_offset(const struct SafetensorsWriter *w, const struct Tensor *tensor,
                           int64_t i) {
    return w->files[tensor->file].data_start + tensor->begin + i * dtype_bytes(tensor->dtype);
}

bool safetensors_write_f32(struct SafetensorsWriter *w, const char *name, const float *data,
                           struct Error *err) {
    struct Tensor *tensor = begin_tensor(w, name, err);
    if (!tensor) return false;
    int64_t width = dtype_bytes(tensor->dtype);
    char *chunk = xmalloc((size_t)(CHUNK_ELEMS * width));
    bool written = true;
    for (int64_t i = 0; written && i < tensor->n_elems; i += CHUNK_ELEMS) {
        int64_t left = tensor->n_elems - i, n = left < CHUNK_ELEMS ? left : CHUNK_ELEMS;
        dtype_from_f32(chunk, data + i, tensor->dtype, n);
        written =
            write_bytes(&w->files[tensor->file], chunk, n * width, elem_offset(w, tensor, i), err);
    }
    free(chunk);
    return written;
}

/* Values that are already of the tensor's type. */
static bool write_as_is(struct SafetensorsWriter *w, const char *name, enum Dtype dtype,
                        const void *data, struct Error *err) {
    struct Tensor *tensor = begin_tensor(w, name, err);
    if (!tensor) return false;
    TMD_CHECK(tensor->dtype == dtype, "tensor '%s' was declared as %s, not %s", name,
              dtype_name(tensor->dtype), dtype_name(dtype));
    return write_bytes(&w->files[tensor->file], data, tensor->n_bytes, elem_offset(w, tensor, 0),
                       err);
}

bool safetensors_write_f64(struct SafetensorsWriter *w, const char *name, const double *data,
                           struct Error *err) {
    return write_as_is(w, name, DTYPE_F64, data, err);
}

bool safetensors_write_i64(struct SafetensorsWriter *w, const char *name, const int64_t *data,
                           struct Error *err) {
    return write_as_is(w, name, DTYPE_I64, data, err);
}

/* ---- ending ---- */

/* {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}} */
static bool write_index(const struct SafetensorsWriter *w, struct Error *err) {
    json_t *map = json_object();
    int64_t total = 0;
    for (int64_t i = 0; i < w->n_tensors; i++) {
        const char *file = w->files[w->tensors[i].file].path + strlen(w->folder) + 1;
        json_object_set_new(map, w->tensors[i].name, json_string(file));
        total += w->tensors[i].n_bytes;
    }
    json_t *root =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *path = xprintf("%s/%s.safetensors.index.json", w->folder, w->stem);
    bool written = json_file_save(path, root, err);
    free(path);
    json_decref(root);
    return written;
}

/* Publishes every file; what is published needs no clean-up any more. */
static bool publish_files(struct SafetensorsWriter *w, struct Error *err) {
    for (int f = 0; f < w->n_files; f++) {
        struct OutputFile *file = &w->files[f];
        bool closed = close(file->fd) == 0;
        file->fd = -1;
        if (!closed)
            return error_set(err, "%s: cannot be written: %s", file->partial, strerror(errno));
        if (!atomic_file_publish(file->partial, file->path, err)) return false;
    }
    return w->n_files == 1 || write_index(w, err);
}

bool safetensors_writer_commit(struct SafetensorsWriter *w, struct Error *err) {
    for (int64_t i = 0; i < w->n_tensors; i++)
        TMD_CHECK(w->tensors[i].written, "tensor '%s' was declared, but not written",
                  w->tensors[i].name);
    bool committed = begin_files(w, err) && publish_files(w, err);
    safetensors_writer_abandon(w);
    return committed;
}

void safetensors_writer_abandon(struct SafetensorsWriter *w) {
    if (!w) return;
    for (int f = 0; f < w->n_files; f++) {
        if (w->files[f].fd >= 0) close(w->files[f].fd);
        unlink(w->files[f].partial);
        free(w->files[f].partial);
        free(w->files[f].path);
    }
    for (int64_t i = 0; i < w->n_tensors; i++) free(w->tensors[i].name);
    free(w->tensors);
    free(w->files);
    free(w->folder);
    free(w->stem);
    free(w->path);
    json_decref(w->metadata);
    free(w);
}
