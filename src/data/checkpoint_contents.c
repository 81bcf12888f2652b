/* Sorted lists of values and tensors, and the checksum over both. */
#include "data/checkpoint_contents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/crc32.h"
#include "data/h5_array.h"
#include "data/shape_text.h"
#include "data/utf8.h"

bool ckpt_name_is_sane(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > CKPT_MAX_NAME || !utf8_valid(name)) return false;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return false;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f || name[i] == '/') return false;
    }
    return true;
}

/* Datasets shorter than SMALL_BYTES gain nothing from chunks; others have about CHUNK_BYTES: little
 * is read twice where ranges of several ranks meet in a chunk, a chunk stays in a processor's cache
 * from the disk to its place, and each byte of its float32, shuffled, is a block of zstd's. */
enum { SMALL_BYTES = 1 << 16, CHUNK_BYTES = 1 << 19 };

int64_t ckpt_chunk_rows(int64_t n_rows, int64_t row_bytes) {
    TMD_CHECK(row_bytes <= H5_MAX_CHUNK_BYTES, "a row of %lld bytes", (long long)row_bytes);
    int64_t n_bytes = n_rows * row_bytes, n_chunks = (n_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    return n_bytes < SMALL_BYTES ? 0 : (n_rows + n_chunks - 1) / n_chunks;
}

int64_t ckpt_piece_chunk_elems(int64_t n_elems) {
    int64_t chunk = ckpt_chunk_rows(n_elems, sizeof(float));
    return chunk > 0 ? chunk : n_elems;
}

int64_t ckpt_piece_chunks(int64_t n_elems) {
    int64_t chunk = ckpt_piece_chunk_elems(n_elems);
    return (n_elems + chunk - 1) / chunk;
}

void *ckpt_grow(void *items, int64_t n, int64_t n_more, int64_t *capacity, size_t item_bytes) {
    if (n + n_more <= *capacity) return items;
    *capacity = 2 * (n + n_more) + 64;
    return xrealloc(items, (size_t)*capacity * item_bytes);
}

struct CkptValue *ckpt_contents_add_value(struct CkptContents *contents, const char *key,
                                          enum CkptKind kind, const char *text) {
    contents->values = ckpt_grow(contents->values, contents->n_values, 1,
                                 &contents->values_capacity, sizeof *contents->values);
    struct CkptValue *value = &contents->values[contents->n_values++];
    *value =
        (struct CkptValue){.key = xstrdup(key), .kind = kind, .text = text ? xstrdup(text) : NULL};
    return value;
}

struct CkptTensorInfo *ckpt_contents_add_tensor(struct CkptContents *contents, const char *group,
                                                const char *name, int n_dims,
                                                const int64_t *shape) {
    contents->tensors = ckpt_grow(contents->tensors, contents->n_tensors, 1,
                                  &contents->tensors_capacity, sizeof *contents->tensors);
    struct CkptTensorInfo *tensor = &contents->tensors[contents->n_tensors++];
    *tensor = (struct CkptTensorInfo){
        .group = xstrdup(group),
        .name = xstrdup(name),
        .n_dims = n_dims,
        .n_elems = 1,
        .first_piece = contents->n_pieces,
    };
    for (int d = 0; d < n_dims; d++) {
        tensor->shape[d] = shape[d];
        tensor->n_elems *= shape[d];
    }
    return tensor;
}

void ckpt_contents_add_piece(struct CkptContents *contents, int shard, int64_t begin, int64_t end,
                             const uint32_t *chunk_crc32) {
    int64_t n_elems = end - begin, chunk = ckpt_piece_chunk_elems(n_elems);
    int64_t n_chunks = ckpt_piece_chunks(n_elems);
    contents->pieces = ckpt_grow(contents->pieces, contents->n_pieces, 1,
                                 &contents->pieces_capacity, sizeof *contents->pieces);
    contents->chunk_crc32 = ckpt_grow(contents->chunk_crc32, contents->n_chunks, n_chunks,
                                      &contents->chunks_capacity, sizeof *contents->chunk_crc32);
    struct CkptTensorInfo *tensor = &contents->tensors[contents->n_tensors - 1];
    for (int64_t i = 0; i < n_chunks; i++) {
        int64_t left = n_elems - i * chunk;
        int64_t n_bytes = (left < chunk ? left : chunk) * (int64_t)sizeof(float);
        tensor->crc32 = crc32_joined(tensor->crc32, chunk_crc32[i], n_bytes);
        contents->chunk_crc32[contents->n_chunks + i] = chunk_crc32[i];
    }
    contents->pieces[contents->n_pieces++] = (struct CkptPiece){
        .shard = shard, .begin = begin, .end = end, .first_chunk = contents->n_chunks};
    contents->n_chunks += n_chunks;
    tensor->n_pieces++;
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
    free(contents->pieces);
    free(contents->chunk_crc32);
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
        snprintf(out, n_out, "text %08x", crc32_after(0, value->text, (int64_t)strlen(value->text)));
        break;
    }
}

/* " 2:60-90 0a1b2c3d 4e5f6071", into a checksum. */
static uint32_t sum_up_piece(uint32_t crc, const struct CkptContents *contents,
                             const struct CkptPiece *piece) {
    char word[96];
    int n = snprintf(word, sizeof word, " %d:%lld-%lld", piece->shard, (long long)piece->begin,
                     (long long)piece->end);
    crc = crc32_after(crc, word, n);
    int64_t n_chunks = ckpt_piece_chunks(piece->end - piece->begin);
    for (int64_t i = 0; i < n_chunks; i++) {
        n = snprintf(word, sizeof word, " %08x", contents->chunk_crc32[piece->first_chunk + i]);
        crc = crc32_after(crc, word, n);
    }
    return crc;
}

uint32_t ckpt_contents_manifest(const struct CkptContents *contents) {
    char line[3 * CKPT_MAX_NAME + sizeof(struct ShapeText) + 64], what[64];
    uint32_t crc = 0;
    for (int64_t i = 0; i < contents->n_values; i++) {
        describe_value(what, sizeof what, &contents->values[i]);
        int n = snprintf(line, sizeof line, "%s %s\n", contents->values[i].key, what);
        crc = crc32_after(crc, line, n);
    }
    for (int64_t i = 0; i < contents->n_tensors; i++) {
        const struct CkptTensorInfo *tensor = &contents->tensors[i];
        int n = snprintf(line, sizeof line, "%s/%s %s %08x", tensor->group, tensor->name,
                         shape_text(tensor->n_dims, tensor->shape).s, tensor->crc32);
        crc = crc32_after(crc, line, n);
        for (int64_t p = 0; p < tensor->n_pieces; p++)
            crc = sum_up_piece(crc, contents, &contents->pieces[tensor->first_piece + p]);
        crc = crc32_after(crc, "\n", 1);
    }
    return crc;
}
