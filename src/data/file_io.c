/* Loops round pread and pwrite, which may stop early. */
#include "data/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool file_open_read(const char *path, int *fd, int64_t *n_bytes, struct Error *err) {
    struct stat status;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return error_set(err, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(*fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(*fd);
        *fd = -1;
        return error_set(err, "%s: not a regular file", path);
    }
    *n_bytes = status.st_size;
    return true;
}

FILE *file_open_stream(const char *path, struct Error *err) {
    int fd;
    int64_t n_bytes;
    if (!file_open_read(path, &fd, &n_bytes, err)) return NULL;
    FILE *stream = fdopen(fd, "r");
    TMD_CHECK(stream, "%s: no memory for a stream", path);
    return stream;
}

bool file_read_at(int fd, const char *path, void *out, int64_t n_bytes, int64_t offset,
                  struct Error *err) {
    while (n_bytes > 0) {
        ssize_t got = pread(fd, out, (size_t)n_bytes, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return error_set(err, "%s: cannot be read: %s", path, strerror(errno));
        if (got == 0) return error_set(err, "%s: ends at byte %lld", path, (long long)offset);
        out = (char *)out + got;
        offset += got;
        n_bytes -= got;
    }
    return true;
}

bool file_write_at(int fd, const char *path, const void *bytes, int64_t n_bytes, int64_t offset,
                   struct Error *err) {
    while (n_bytes > 0) {
        ssize_t put = pwrite(fd, bytes, (size_t)n_bytes, offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return error_set(err, "%s: cannot be written: %s", path, strerror(errno));
        bytes = (const char *)bytes + put;
        offset += put;
        n_bytes -= put;
    }
    return true;
}
