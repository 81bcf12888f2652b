/* Write beside, sync, rename, sync the folder. */
#include "data/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *atomic_file_partial(const char *path) {
    return xprintf("%s.partial", path);
}

char *path_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return xstrdup(".");
    if (slash == path) return xstrdup("/");
    return xprintf("%.*s", (int)(slash - path), path);
}

static bool sync_path(const char *path, int flags, struct Error *err) {
    int fd = open(path, flags | O_RDONLY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    /* Some file systems know no fsync of folders; there the rename itself has to do. */
    if (fd >= 0 && !synced && (flags & O_DIRECTORY) && errno == EINVAL) synced = true;
    if (!synced) error_set(err, "%s: cannot be synced to disk: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return synced;
}

bool folder_sync(const char *folder, struct Error *err) {
    return sync_path(folder, O_DIRECTORY, err);
}

bool atomic_file_publish(const char *partial, const char *path, struct Error *err) {
    bool renamed = false;
    if (sync_path(partial, 0, err)) {
        renamed = rename(partial, path) == 0;
        if (!renamed) error_set(err, "%s: cannot be put in place: %s", path, strerror(errno));
    }
    if (!renamed) {
        unlink(partial);
        return false;
    }
    char *folder = path_folder(path);
    bool synced = folder_sync(folder, err);
    free(folder);
    return synced;
}

bool atomic_file_write(const char *path, const void *bytes, size_t n_bytes, struct Error *err) {
    char *partial = atomic_file_partial(path);
    FILE *stream = fopen(partial, "wbe");
    bool written = stream && fwrite(bytes, 1, n_bytes, stream) == n_bytes;
    if (stream && fclose(stream) != 0) written = false;
    if (written) {
        written = atomic_file_publish(partial, path, err);
    } else {
        error_set(err, "%s: cannot be written: %s", partial, strerror(errno));
        if (stream) unlink(partial);
    }
    free(partial);
    return written;
}
