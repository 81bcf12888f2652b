/* Reads the file as a whole, after a look at its length. */
#include "config_file.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/file_io.h"

static bool read_open(struct ConfigFile *file, int fd, int64_t n_bytes, const char *path,
                      struct Error *err) {
    struct stat status;
    if (n_bytes > CONFIG_FILE_MAX_BYTES)
        return error_set(err, "%s: expected a configuration of at most %d bytes, got %lld", path,
                         CONFIG_FILE_MAX_BYTES, (long long)n_bytes);
    if (fstat(fd, &status) != 0)
        return error_set(err, "%s: cannot be read: %s", path, strerror(errno));
    file->device = status.st_dev;
    file->inode = status.st_ino;
    file->n_bytes = (size_t)n_bytes;
    file->text = xmalloc((size_t)n_bytes + 1);
    return file_read_at(fd, path, file->text, n_bytes, 0, err);
}

bool config_file_read(struct ConfigFile *file, const char *path, struct Error *err) {
    int fd;
    int64_t n_bytes;
    *file = (struct ConfigFile){0};
    if (!file_open_read(path, &fd, &n_bytes, err)) return false;
    bool ok = read_open(file, fd, n_bytes, path, err);
    close(fd);
    if (!ok) config_file_free(file);
    return ok;
}

void config_file_free(struct ConfigFile *file) {
    free(file->text);
    *file = (struct ConfigFile){0};
}

char *config_file_relative(const char *from, const char *path) {
    const char *slash = strrchr(from, '/');
    if (*path == '/' || !slash) return xstrdup(path);
    return xprintf("%.*s/%s", (int)(slash - from), from, path);
}
