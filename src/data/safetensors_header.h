/* The JSON header of one safetensors file: checked and taken apart, without touching any file. */
#ifndef TMD_DATA_SAFETENSORS_HEADER_H
#define TMD_DATA_SAFETENSORS_HEADER_H

#include <jansson.h>

#include "data/safetensors.h"

/* Longest header that is read, and longest tensor name. */
enum { SAFETENSORS_MAX_HEADER = 100000000, SAFETENSORS_MAX_NAME = 512 };

/* One row of the table of element types. */
struct SafetensorsType {
    const char *text;
    int64_t n_bytes;
    bool readable;
};

struct SafetensorsEntry {
    struct SafetensorsInfo info;        /* its strings belong to the entry */
    const struct SafetensorsType *type; /* NULL: a type that this program has never heard of */
    int64_t begin, n_bytes;             /* within the data section of its file */
    int file;                           /* for the owner of several headers; 0 here */
};

struct SafetensorsHeader {
    struct SafetensorsEntry *entries; /* in the order of their data */
    int64_t n_entries;
    json_t *metadata; /* object of strings, or NULL */
};

/* `data_bytes`: length of the data section, which the tensors must cover exactly.  Messages name
 * the tensor, not the file.  On failure nothing needs freeing. */
bool safetensors_header_parse(struct SafetensorsHeader *header, const char *json, size_t n_bytes,
                              int64_t data_bytes, struct Error *err);
void safetensors_header_free(struct SafetensorsHeader *header);

/* Whether `name` may name a tensor: printable, not empty, at most SAFETENSORS_MAX_NAME bytes. */
bool safetensors_name_is_sane(const char *name);

#endif
