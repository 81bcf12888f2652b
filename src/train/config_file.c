/* Reads up to one byte more than the limit, so that it holds for pipes and devices too. */
#include "config_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool read_open(struct ConfigFile *file, FILE *in, const char *path, struct Error *err) {
    struct stat status;
    if (fstat(fileno(in), &status) != 0)
        return error_set(err, "cannot read %s: %s", path, strerror(errno));
    if (S_ISDIR(status.st_mode))
        return error_set(err, "cannot read %s: expected a YAML file, got a directory", path);
    file->device = status.st_dev;
    file->inode = status.st_ino;
    file->n_bytes = fread(file->text, 1, CONFIG_FILE_MAX_BYTES + 1, in);
    if (ferror(in)) return error_set(err, "cannot read %s: %s", path, strerror(errno));
    if (file->n_bytes > CONFIG_FILE_MAX_BYTES)
        return error_set(err,
                         "cannot read %s: expected a configuration of at most %d bytes, got more",
                         path, CONFIG_FILE_MAX_BYTES);
    return true;
}

bool config_file_read(struct ConfigFile *file, const char *path, struct Error *err) {
    *file = (struct ConfigFile){0};
    FILE *in = fopen(path, "rb");
    if (!in) return error_set(err, "cannot open %s: %s", path, strerror(errno));
    file->text = xmalloc(CONFIG_FILE_MAX_BYTES + 1);
    bool ok = read_open(file, in, path, err);
    fclose(in);
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
