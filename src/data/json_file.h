/* JSON that may come from anywhere, through jansson. */
#ifndef TMD_DATA_JSON_FILE_H
#define TMD_DATA_JSON_FILE_H

#include <jansson.h>

#include "error.h"

/* Longest text that is read. */
enum { JSON_MAX_BYTES = 100000000 };

/* Parses a text.  A key that occurs twice is an error.  The message says what is wrong at which
 * byte, but quotes nothing of the text, which may hold anything.  NULL on failure. */
json_t *json_parse(const char *text, size_t n_bytes, struct Error *err);

/* The same for a file; messages name it. */
json_t *json_file_load(const char *path, struct Error *err);

/* Writes `root` to a file that appears whole or not at all. */
bool json_file_save(const char *path, const json_t *root, struct Error *err);

#endif
