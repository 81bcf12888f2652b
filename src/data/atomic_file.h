/* Files that are there whole or not at all.
 *
 * A writer fills `<path>.partial`, which no reader looks at, and publishes it: fsync of the file,
 * rename over `path`, fsync of the folder.  After a crash at any moment `path` is the old file, the
 * new one, or absent; what a crash leaves under the partial name is overwritten by the next try. */
#ifndef TMD_DATA_ATOMIC_FILE_H
#define TMD_DATA_ATOMIC_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

/* The name to write to; the caller frees it. */
char *atomic_file_partial(const char *path);

/* Makes the closed file `partial` durable and renames it to `path`, which lies in the same folder.
 * On failure the partial file is removed. */
bool atomic_file_publish(const char *partial, const char *path, struct Error *err);

/* Writes a small file in one go. */
bool atomic_file_write(const char *path, const void *bytes, size_t n_bytes, struct Error *err);

/* Makes durable which files a folder holds. */
bool folder_sync(const char *folder, struct Error *err);

/* The folder in which `path` lies ("." for a bare name); the caller frees it. */
char *path_folder(const char *path);

#endif
