/* Checks every number of a safetensors header before anything is believed. */
#include "data/safetensors_header.h"

#include <stdlib.h>
#include <string.h>

#include "data/json_file.h"

/* https://docs.rs/safetensors, enum Dtype; the types narrower than a byte are left out. */
static const struct SafetensorsType types[] = {
    {"F32", 4, true},  {"F64", 8, true},      {"BF16", 2, true},     {"F16", 2, true},
    {"I64", 8, true},  {"I32", 4, true},      {"U8", 1, true},       {"BOOL", 1, true},
    {"I8", 1, false},  {"I16", 2, false},     {"U16", 2, false},     {"U32", 4, false},
    {"U64", 8, false}, {"F8_E4M3", 1, false}, {"F8_E5M2", 1, false}, {"F8_E8M0", 1, false},
    {"C64", 8, false},
};

static const struct SafetensorsType *find_type(const char *text) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].text, text) == 0) return &types[i];
    }
    return NULL;
}

static bool is_printable(const char *text, size_t max_bytes) {
    size_t n = strlen(text);
    if (n == 0 || n > max_bytes) return false;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) return false;
    }
    return true;
}

bool safetensors_name_is_sane(const char *name) {
    return is_printable(name, SAFETENSORS_MAX_NAME);
}

static bool parse_shape(struct SafetensorsInfo *info, const json_t *shape, struct Error *err) {
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_DIMS)
        return error_set(err, "tensor '%s': shape must be a list of at most %d numbers", info->name,
                         SAFETENSORS_MAX_DIMS);
    info->n_dims = (int)json_array_size(shape);
    info->n_elems = 1;
    for (int d = 0; d < info->n_dims; d++) {
        const json_t *extent = json_array_get(shape, (size_t)d);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return error_set(err,
                             "tensor '%s': dimension %d of the shape is not a whole number >= 0",
                             info->name, d);
        info->shape[d] = json_integer_value(extent);
        if (__builtin_mul_overflow(info->n_elems, info->shape[d], &info->n_elems))
            return error_set(err, "tensor '%s': the shape has more elements than can be counted",
                             info->name);
    }
    return true;
}

static bool parse_offsets(struct SafetensorsEntry *entry, const json_t *offsets, int64_t data_bytes,
                          struct Error *err) {
    const char *name = entry->info.name;
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return error_set(err, "tensor '%s': data_offsets must be two whole numbers", name);
    int64_t begin = json_integer_value(first), end = json_integer_value(last), needed;
    if (begin < 0 || end < begin || end > data_bytes)
        return error_set(err,
                         "tensor '%s': data_offsets [%lld, %lld] do not lie within the file's %lld "
                         "bytes of data",
                         name, (long long)begin, (long long)end, (long long)data_bytes);
    entry->begin = begin;
    entry->n_bytes = end - begin;
    if (!entry->type) return true;
    if (__builtin_mul_overflow(entry->info.n_elems, entry->type->n_bytes, &needed) ||
        needed != entry->n_bytes)
        return error_set(
            err, "tensor '%s': %lld elements of %s do not fit data_offsets of %lld bytes", name,
            (long long)entry->info.n_elems, entry->type->text, (long long)entry->n_bytes);
    return true;
}

static bool parse_entry(struct SafetensorsEntry *entry, const char *name, const json_t *value,
                        int64_t data_bytes, struct Error *err) {
    if (!safetensors_name_is_sane(name))
        return error_set(err, "a tensor's name is empty, unprintable or longer than %d bytes",
                         SAFETENSORS_MAX_NAME);
    struct SafetensorsInfo *info = &entry->info;
    info->name = xstrdup(name);
    const char *text = json_string_value(json_object_get(value, "dtype"));
    if (!text || !is_printable(text, 16)) return error_set(err, "tensor '%s': has no dtype", name);
    info->dtype_text = xstrdup(text);
    info->has_dtype = dtype_parse(text, &info->dtype);
    entry->type = find_type(text);
    info->readable = entry->type && entry->type->readable;
    info->has_dtype = info->has_dtype && info->readable;
    return parse_shape(info, json_object_get(value, "shape"), err) &&
           parse_offsets(entry, json_object_get(value, "data_offsets"), data_bytes, err);
}

static int compare_begin(const void *left, const void *right) {
    const struct SafetensorsEntry *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->n_bytes > b->n_bytes) - (a->n_bytes < b->n_bytes); /* empty tensors first */
}

/* In the order of their data the tensors must follow each other without a hole or an overlap. */
static bool check_cover(struct SafetensorsHeader *header, int64_t data_bytes, struct Error *err) {
    int64_t end = 0;
    for (int64_t i = 0; i < header->n_entries; i++) {
        const struct SafetensorsEntry *entry = &header->entries[i];
        if (entry->begin != end)
            return error_set(
                err, "tensor '%s': its data begins at byte %lld, the one before ends at %lld",
                entry->info.name, (long long)entry->begin, (long long)end);
        end += entry->n_bytes;
    }
    if (end != data_bytes)
        return error_set(err, "the tensors end at byte %lld of the data, the file at byte %lld",
                         (long long)end, (long long)data_bytes);
    return true;
}

static bool take_metadata(struct SafetensorsHeader *header, json_t *value, struct Error *err) {
    const char *key;
    json_t *text;
    if (!json_is_object(value)) return error_set(err, "__metadata__ is not an object");
    json_object_foreach(value, key, text) {
        if (!json_is_string(text)) return error_set(err, "__metadata__ holds more than strings");
    }
    header->metadata = json_incref(value);
    return true;
}

static bool take_tensors(struct SafetensorsHeader *header, json_t *root, int64_t data_bytes,
                         struct Error *err) {
    const char *name;
    json_t *value;
    if (!json_is_object(root)) return error_set(err, "the header is not a JSON object");
    header->entries = xcalloc(json_object_size(root) * sizeof *header->entries);
    json_object_foreach(root, name, value) {
        if (strcmp(name, "__metadata__") == 0) {
            if (!take_metadata(header, value, err)) return false;
            continue;
        }
        if (!parse_entry(&header->entries[header->n_entries++], name, value, data_bytes, err))
            return false;
    }
    if (header->n_entries > 0)
        qsort(header->entries, (size_t)header->n_entries, sizeof *header->entries, compare_begin);
    return check_cover(header, data_bytes, err);
}

bool safetensors_header_parse(struct SafetensorsHeader *header, const char *json, size_t n_bytes,
                              int64_t data_bytes, struct Error *err) {
    *header = (struct SafetensorsHeader){0};
    json_t *root = json_parse(json, n_bytes, err);
    if (!root) return error_prefix(err, "header");
    bool taken = take_tensors(header, root, data_bytes, err);
    json_decref(root);
    if (!taken) safetensors_header_free(header);
    return taken;
}

void safetensors_header_free(struct SafetensorsHeader *header) {
    for (int64_t i = 0; i < header->n_entries; i++) {
        free((char *)header->entries[i].info.name);
        free((char *)header->entries[i].info.dtype_text);
    }
    free(header->entries);
    json_decref(header->metadata);
    *header = (struct SafetensorsHeader){0};
}
