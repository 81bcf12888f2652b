/* Sorted lists of values and tensors, and the checksum over both. */
#include "data/checkpoint_contents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "data/shape_text.h"
#include "data/utf8.h"

uint32_t ckpt_crc32(uint32_t crc, const void *bytes, int64_t n_bytes) {
    return (uint32_t)crc32_z(crc, bytes, (size_t)n_bytes);
}

bool ckpt_name_is_sane(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > CKPT_MAX_NAME || !utf8_valid(name)) return false;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return false;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f || name[i] == '/') return false;
    }
    return true;
}

/* Room for one more element in a growing array. */
static void *grow(void *items, int64_t n, int64_t *capacity, size_t item_bytes) {
    if (n < *capacity) return items;
    *capacity = *capacity ? 2 * *capacity : 64;
    return xrealloc(items, (size_t)*capacity * item_bytes);
}

struct CkptValue *ckpt_contents_add_value(struct CkptContents *contents, const char *key,
                                          enum CkptKind kind, const char *text) {
    contents->values = grow(contents->values, contents->n_values, &contents->values_capacity,
                            sizeof *contents->values);
    struct CkptValue *value = &contents->values[contents->n_values++];
    *value =
        (struct CkptValue){.key = xstrdup(key), .kind = kind, .text = text ? xstrdup(text) : NULL};
    return value;
}

struct CkptTensorInfo *ckpt_contents_add_tensor(struct CkptContents *contents, const char *group,
                                                const char *name, int n_dims,
                                                const int64_t *shape) {
    contents->tensors = grow(contents->tensors, contents->n_tensors, &contents->tensors_capacity,
                             sizeof *contents->tensors);
    struct CkptTensorInfo *tensor = &contents->tensors[contents->n_tensors++];
    *tensor = (struct CkptTensorInfo){
        .group = xstrdup(group), .name = xstrdup(name), .n_dims = n_dims, .n_elems = 1};
    for (int d = 0; d < n_dims; d++) {
        tensor->shape[d] = shape[d];
        tensor->n_elems *= shape[d];
    }
    return tensor;
}

static int compare_values(const void *left, const void *right) {
    return strcmp(((const struct CkptValue *)left)->key, ((const struct CkptValue *)right)->key);
}

static int compare_tensors(const void *left, const void *right) {
    const struct CkptTensorInfo *a = left, *b = right;
    int by_group = strcmp(a->group, b->group);
    return by_group ? by_group : strcmp(a->name, b->name);
}

void ckpt_contents_sort(struct CkptContents *contents) {
    if (contents->n_values > 0)
        qsort(contents->values, (size_t)contents->n_values, sizeof *contents->values,
              compare_values);
    if (contents->n_tensors > 0)
        qsort(contents->tensors, (size_t)contents->n_tensors, sizeof *contents->tensors,
              compare_tensors);
}

void ckpt_contents_free(struct CkptContents *contents) {
    for (int64_t i = 0; i < contents->n_values; i++) {
        free((char *)contents->values[i].key);
        free((char *)contents->values[i].text);
    }
    for (int64_t i = 0; i < contents->n_tensors; i++) {
        free((char *)contents->tensors[i].group);
        free((char *)contents->tensors[i].name);
    }
    free(contents->values);
    free(contents->tensors);
    *contents = (struct CkptContents){0};
}

const struct CkptValue *ckpt_contents_find_value(const struct CkptContents *contents,
                                                 const char *key) {
    struct CkptValue wanted = {.key = key};
    if (contents->n_values == 0) return NULL;
    return bsearch(&wanted, contents->values, (size_t)contents->n_values, sizeof wanted,
                   compare_values);
}

int64_t ckpt_contents_find_tensor(const struct CkptContents *contents, const char *group,
                                  const char *name) {
    struct CkptTensorInfo wanted = {.group = group, .name = name};
    if (contents->n_tensors == 0) return -1;
    const struct CkptTensorInfo *found = bsearch(
        &wanted, contents->tensors, (size_t)contents->n_tensors, sizeof wanted, compare_tensors);
    return found ? found - contents->tensors : -1;
}

/* "int 42", "real 3ff0000000000000", "text 0a1b2c3d" */
static void describe_value(char *out, size_t n_out, const struct CkptValue *value) {
    uint64_t bits;
    memcpy(&bits, &value->real, sizeof bits);
    switch (value->kind) {
    case CKPT_INT:
        snprintf(out, n_out, "int %lld", (long long)value->integer);
        break;
    case CKPT_REAL:
        snprintf(out, n_out, "real %016llx", (unsigned long long)bits);
        break;
    case CKPT_TEXT:
        snprintf(out, n_out, "text %08x", ckpt_crc32(0, value->text, (int64_t)strlen(value->text)));
        break;
    }
}

uint32_t ckpt_contents_manifest(const struct CkptContents *contents) {
    char line[3 * CKPT_MAX_NAME + sizeof(struct ShapeText) + 64], what[64];
    uint32_t crc = 0;
    for (int64_t i = 0; i < contents->n_values; i++) {
        describe_value(what, sizeof what, &contents->values[i]);
        int n = snprintf(line, sizeof line, "%s %s\n", contents->values[i].key, what);
        crc = ckpt_crc32(crc, line, n);
    }
    for (int64_t i = 0; i < contents->n_tensors; i++) {
        const struct CkptTensorInfo *tensor = &contents->tensors[i];
        int n = snprintf(line, sizeof line, "%s/%s %s %08x\n", tensor->group, tensor->name,
                         shape_text(tensor->n_dims, tensor->shape).s, tensor->crc32);
        crc = ckpt_crc32(crc, line, n);
    }
    return crc;
}
