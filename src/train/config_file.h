/* The text of a configuration file, and where its base lies. */
#ifndef TMD_CONFIG_FILE_H
#define TMD_CONFIG_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "error.h"

enum { CONFIG_FILE_MAX_BYTES = 1 << 20 };

struct ConfigFile {
    char *text; /* n_bytes, owned */
    size_t n_bytes;
    dev_t device; /* with inode: which file it is, whatever its path */
    ino_t inode;
};

/* Reads a whole file.  Missing, unreadable, no regular file (a pipe may never end) or larger than the
 * limit: an error that names the path, and nothing to free. */
bool config_file_read(struct ConfigFile *file, const char *path, struct Error *err);
void config_file_free(struct ConfigFile *file);

/* `path` as seen from the folder of the file `from`; the caller frees it. */
char *config_file_relative(const char *from, const char *path);

#endif
