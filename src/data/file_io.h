/* Regular files by descriptor: transfers at given offsets, complete or with an error that names the
 * file. */
#ifndef TMD_DATA_FILE_IO_H
#define TMD_DATA_FILE_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"

/* Opens a file for reading and tells its length.  Anything but a regular file is refused (a pipe
 * would block).  The caller closes *fd. */
bool file_open_read(const char *path, int *fd, int64_t *n_bytes, struct Error *err);
/* The same for a text that is read from its beginning on.  NULL on failure; the caller closes it. */
FILE *file_open_stream(const char *path, struct Error *err);

/* Transfer all n_bytes at `offset`; `path` is for the message. */
bool file_read_at(int fd, const char *path, void *out, int64_t n_bytes, int64_t offset,
                  struct Error *err);
bool file_write_at(int fd, const char *path, const void *bytes, int64_t n_bytes, int64_t offset,
                   struct Error *err);

#endif
