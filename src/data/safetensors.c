/* Opens one or several safetensors files as one sorted list of tensors, and copies them out. */
#include "data/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/atomic_file.h"
#include "data/file_io.h"
#include "data/json_file.h"
#include "data/safetensors_header.h"

enum { CHUNK_BYTES = 1 << 20 };

struct DataFile {
    char *path;
    int fd;
    int64_t data_start, n_bytes;
};

struct Safetensors {
    struct DataFile *files;
    int n_files;
    struct SafetensorsEntry *entries; /* ascending by name */
    int64_t n_entries;
    json_t *metadata;
};

/* ---- files ---- */

/* Reads the header of files[f] and appends its tensors. */
static bool append_tensors(struct Safetensors *st, int f, struct Error *err) {
    struct DataFile *file = &st->files[f];
    unsigned char raw[8];
    uint64_t header_bytes = 0;
    if (file->n_bytes < 8)
        return error_set(err, "%s: not a safetensors file: %lld bytes are too short for a header",
                         file->path, (long long)file->n_bytes);
    if (!file_read_at(file->fd, file->path, raw, 8, 0, err)) return false;
    for (int i = 7; i >= 0; i--) header_bytes = header_bytes << 8 | raw[i];
    if (header_bytes > SAFETENSORS_MAX_HEADER || (int64_t)header_bytes > file->n_bytes - 8)
        return error_set(
            err,
            "%s: not a safetensors file, or truncated: a header of %llu bytes (at most %d) "
            "in a file of %lld",
            file->path, (unsigned long long)header_bytes, SAFETENSORS_MAX_HEADER,
            (long long)file->n_bytes);
    file->data_start = 8 + (int64_t)header_bytes;

    struct SafetensorsHeader header;
    char *json = xmalloc(header_bytes);
    bool parsed = file_read_at(file->fd, file->path, json, (int64_t)header_bytes, 8, err);
    if (parsed && !safetensors_header_parse(&header, json, header_bytes,
                                            file->n_bytes - file->data_start, err))
        parsed = error_prefix(err, "%s", file->path);
    free(json);
    if (!parsed) return false;

    int64_t n = st->n_entries + header.n_entries;
    st->entries = xrealloc(st->entries, (size_t)n * sizeof *st->entries);
    for (int64_t i = 0; i < header.n_entries; i++) {
        st->entries[st->n_entries + i] = header.entries[i];
        st->entries[st->n_entries + i].file = f;
    }
    st->n_entries = n;
    if (!st->metadata) st->metadata = json_incref(header.metadata);
    header.n_entries = 0; /* their strings are ours now */
    safetensors_header_free(&header);
    return true;
}

/* Takes over `path`. */
static bool append_file(struct Safetensors *st, char *path, struct Error *err) {
    st->files = xrealloc(st->files, (size_t)(st->n_files + 1) * sizeof *st->files);
    struct DataFile *file = &st->files[st->n_files++];
    *file = (struct DataFile){.path = path, .fd = -1};
    return file_open_read(path, &file->fd, &file->n_bytes, err) &&
           append_tensors(st, st->n_files - 1, err);
}

/* ---- index ---- */

static int find_file(const struct Safetensors *st, const char *path) {
    for (int f = 0; f < st->n_files; f++) {
        if (strcmp(st->files[f].path, path) == 0) return f;
    }
    return -1;
}

/* Opens every file of the map once.  Files lie beside the index: a slash could lead anywhere. */
static bool open_files(struct Safetensors *st, const char *index_path, json_t *weight_map,
                       struct Error *err) {
    const char *name;
    json_t *value;
    char *folder = path_folder(index_path);
    bool opened = true;
    json_object_foreach(weight_map, name, value) {
        const char *file = json_string_value(value);
        if (!safetensors_name_is_sane(name) || !file || !safetensors_name_is_sane(file) ||
            strchr(file, '/')) {
            opened = error_set(err, "%s: weight_map must give plain names of files beside it",
                               index_path);
            break;
        }
        char *path = xprintf("%s/%s", folder, file);
        if (find_file(st, path) >= 0) {
            free(path);
        } else if (!append_file(st, path, err)) {
            opened = error_prefix(err, "%s", index_path);
            break;
        }
    }
    free(folder);
    return opened;
}

/* The map and the files must name the same tensors in the same places. */
static bool check_map(const struct Safetensors *st, const char *index_path, json_t *weight_map,
                      struct Error *err) {
    const char *name;
    json_t *value;
    json_object_foreach(weight_map, name, value) {
        int64_t i = safetensors_find(st, name);
        const char *file = i < 0 ? NULL : strrchr(safetensors_file(st, i), '/') + 1;
        if (!file || strcmp(file, json_string_value(value)) != 0)
            return error_set(err, "%s: tensor '%s' is not in %s", index_path, name,
                             json_string_value(value));
    }
    for (int64_t i = 0; i < st->n_entries; i++) {
        if (!json_object_get(weight_map, st->entries[i].info.name))
            return error_set(err, "%s: tensor '%s' of %s is not listed", index_path,
                             st->entries[i].info.name, safetensors_file(st, i));
    }
    return true;
}

/* ---- sorted list ---- */

static int compare_names(const void *left, const void *right) {
    const struct SafetensorsEntry *a = left, *b = right;
    return strcmp(a->info.name, b->info.name);
}

static bool sort_entries(struct Safetensors *st, struct Error *err) {
    if (st->n_entries == 0) return true;
    qsort(st->entries, (size_t)st->n_entries, sizeof *st->entries, compare_names);
    for (int64_t i = 1; i < st->n_entries; i++) {
        if (compare_names(&st->entries[i - 1], &st->entries[i]) == 0)
            return error_set(err, "tensor '%s' is both in %s and in %s", st->entries[i].info.name,
                             safetensors_file(st, i - 1), safetensors_file(st, i));
    }
    return true;
}

static bool open_index(struct Safetensors *st, const char *path, struct Error *err) {
    json_t *root = json_file_load(path, err);
    if (!root) return false;
    json_t *weight_map = json_object_get(root, "weight_map");
    bool opened;
    if (!json_is_object(weight_map))
        opened = error_set(err, "%s: has no object 'weight_map', so it is no index", path);
    else
        opened = open_files(st, path, weight_map, err) && sort_entries(st, err) &&
                 check_map(st, path, weight_map, err);
    json_decref(root);
    return opened;
}

/* ---- opening ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The file or index that a folder stands for, or NULL.  The caller frees it. */
static char *find_in_folder(const char *folder) {
    static const char *const names[] = {
        SAFETENSORS_WAN_STEM ".safetensors",
        SAFETENSORS_WAN_STEM ".safetensors.index.json",
        "model.safetensors",
        "model.safetensors.index.json",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = xprintf("%s/%s", folder, names[i]);
        if (access(path, F_OK) == 0) return path;
        free(path);
    }
    return NULL;
}

/* `path` is a file: an index if it is called .json. */
static bool open_file(struct Safetensors *st, const char *path, struct Error *err) {
    if (ends_with(path, ".json")) return open_index(st, path, err);
    return append_file(st, xstrdup(path), err) && sort_entries(st, err);
}

static bool open_path(struct Safetensors *st, const char *path, struct Error *err) {
    struct stat status;
    if (stat(path, &status) != 0)
        return error_set(err, "%s: cannot be opened: %s", path, strerror(errno));
    if (!S_ISDIR(status.st_mode)) return open_file(st, path, err);
    char *inside = find_in_folder(path);
    bool opened = inside
                      ? open_file(st, inside, err)
                      : error_set(err,
                                  "%s: holds neither " SAFETENSORS_WAN_STEM
                                  ".safetensors nor model.safetensors, nor an index of that name",
                                  path);
    free(inside);
    return opened;
}

bool safetensors_open(const char *path, struct Safetensors **out, struct Error *err) {
    struct Safetensors *st = xcalloc(sizeof *st);
    if (!open_path(st, path, err)) {
        safetensors_close(st);
        return false;
    }
    *out = st;
    return true;
}

void safetensors_close(struct Safetensors *st) {
    if (!st) return;
    for (int f = 0; f < st->n_files; f++) {
        if (st->files[f].fd >= 0) close(st->files[f].fd);
        free(st->files[f].path);
    }
    struct SafetensorsHeader all = {st->entries, st->n_entries, st->metadata};
    safetensors_header_free(&all);
    free(st->files);
    free(st);
}

int64_t safetensors_count(const struct Safetensors *st) {
    return st->n_entries;
}

const struct SafetensorsInfo *safetensors_info(const struct Safetensors *st, int64_t i) {
    TMD_CHECK(i >= 0 && i < st->n_entries, "tensor %lld of %lld", (long long)i,
              (long long)st->n_entries);
    return &st->entries[i].info;
}

int64_t safetensors_find(const struct Safetensors *st, const char *name) {
    if (st->n_entries == 0) return -1;
    struct SafetensorsEntry key = {.info.name = name};
    const struct SafetensorsEntry *found =
        bsearch(&key, st->entries, (size_t)st->n_entries, sizeof key, compare_names);
    return found ? found - st->entries : -1;
}

const char *safetensors_file(const struct Safetensors *st, int64_t i) {
    return st->files[st->entries[i].file].path;
}

const char *safetensors_metadata(const struct Safetensors *st, const char *key) {
    return json_string_value(json_object_get(st->metadata, key));
}

/* ---- reading ---- */

/* Element i of `in`, of one of the types that only count: I64, I32, U8, BOOL. */
static int64_t load_integer(const char *in, const struct SafetensorsType *type, int64_t i) {
    int64_t wide;
    int32_t narrow;
    switch (type->n_bytes) {
    case 8:
        memcpy(&wide, in + i * 8, 8);
        return wide;
    case 4:
        memcpy(&narrow, in + i * 4, 4);
        return narrow;
    default:
        return (unsigned char)in[i];
    }
}

static bool is_floating(const struct SafetensorsEntry *entry) {
    return entry->info.has_dtype && entry->info.dtype != DTYPE_I64;
}

static void convert_f32(void *out, int64_t done, const char *in,
                        const struct SafetensorsEntry *entry, int64_t n) {
    float *to = (float *)out + done;
    if (entry->info.has_dtype) {
        dtype_to_f32(to, in, entry->info.dtype, n);
    } else {
        for (int64_t i = 0; i < n; i++) to[i] = (float)load_integer(in, entry->type, i);
    }
}

static void convert_f64(void *out, int64_t done, const char *in,
                        const struct SafetensorsEntry *entry, int64_t n) {
    double *to = (double *)out + done;
    if (entry->info.has_dtype && entry->info.dtype == DTYPE_F64) {
        memcpy(to, in, (size_t)n * sizeof *to);
    } else if (is_floating(entry)) {
        for (int64_t i = 0; i < n; i++) {
            float value;
            dtype_to_f32(&value, in + i * entry->type->n_bytes, entry->info.dtype, 1);
            to[i] = (double)value;
        }
    } else {
        for (int64_t i = 0; i < n; i++) to[i] = (double)load_integer(in, entry->type, i);
    }
}

static void convert_i64(void *out, int64_t done, const char *in,
                        const struct SafetensorsEntry *entry, int64_t n) {
    int64_t *to = (int64_t *)out + done;
    for (int64_t i = 0; i < n; i++) to[i] = load_integer(in, entry->type, i);
}

typedef void (*Convert)(void *out, int64_t done, const char *in,
                        const struct SafetensorsEntry *entry, int64_t n);

static bool read_converted(const struct Safetensors *st, int64_t t, void *out, Convert convert,
                           struct Error *err) {
    const struct SafetensorsEntry *entry = &st->entries[t];
    const struct DataFile *file = &st->files[entry->file];
    if (!entry->info.readable)
        return error_set(err, "%s: tensor '%s' has element type %s, which cannot be read",
                         file->path, entry->info.name, entry->info.dtype_text);
    int64_t width = entry->type->n_bytes, per_chunk = CHUNK_BYTES / width;
    int64_t offset = file->data_start + entry->begin;
    char *chunk = xmalloc(CHUNK_BYTES);
    bool read = true;
    for (int64_t done = 0; read && done < entry->info.n_elems; done += per_chunk) {
        int64_t left = entry->info.n_elems - done, n = left < per_chunk ? left : per_chunk;
        read = file_read_at(file->fd, file->path, chunk, n * width, offset + done * width, err);
        if (read) convert(out, done, chunk, entry, n);
    }
    free(chunk);
    return read || error_prefix(err, "tensor '%s'", entry->info.name);
}

bool safetensors_read_f32(const struct Safetensors *st, int64_t i, float *out, struct Error *err) {
    return read_converted(st, i, out, convert_f32, err);
}

bool safetensors_read_f64(const struct Safetensors *st, int64_t i, double *out, struct Error *err) {
    return read_converted(st, i, out, convert_f64, err);
}

bool safetensors_read_i64(const struct Safetensors *st, int64_t i, int64_t *out,
                          struct Error *err) {
    if (is_floating(&st->entries[i]))
        return error_set(err, "%s: tensor '%s' holds %s, integers are needed",
                         safetensors_file(st, i), st->entries[i].info.name,
                         st->entries[i].info.dtype_text);
    return read_converted(st, i, out, convert_i64, err);
}
