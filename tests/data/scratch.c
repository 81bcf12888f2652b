#define _GNU_SOURCE /* nftw */
#include "scratch.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

char *scratch_make(void) {
    const char *root = getenv("TMPDIR");
    char *folder = xprintf("%s/tmd-test-XXXXXX", root && root[0] ? root : "/tmp");
    TMD_CHECK(mkdtemp(folder), "no temporary folder %s", folder);
    return folder;
}

static int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *ftw) {
    (void)status, (void)flag, (void)ftw;
    return remove(path);
}

void scratch_remove(char *folder) {
    TMD_CHECK(nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0, "%s stays behind", folder);
    free(folder);
}

char *scratch_path(const char *folder, const char *name) {
    return xprintf("%s/%s", folder, name);
}

void scratch_write(const char *path, const void *bytes, size_t n_bytes) {
    FILE *stream = fopen(path, "wb");
    TMD_CHECK(stream && fwrite(bytes, 1, n_bytes, stream) == n_bytes && fclose(stream) == 0,
              "cannot write %s", path);
}

unsigned char *scratch_read(const char *path, size_t *n_bytes) {
    struct stat status;
    FILE *stream = fopen(path, "rb");
    TMD_CHECK(stream && stat(path, &status) == 0, "cannot open %s", path);
    unsigned char *bytes = xmalloc((size_t)status.st_size);
    *n_bytes = fread(bytes, 1, (size_t)status.st_size, stream);
    TMD_CHECK(*n_bytes == (size_t)status.st_size, "cannot read %s", path);
    fclose(stream);
    return bytes;
}

bool scratch_exists(const char *path) {
    return access(path, F_OK) == 0;
}

int scratch_count(const char *folder, const char *suffix) {
    DIR *dir = opendir(folder);
    TMD_CHECK(dir, "cannot list %s", folder);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name), end = strlen(suffix);
        n += length >= end && strcmp(entry->d_name + length - end, suffix) == 0;
    }
    closedir(dir);
    return n;
}

/* HDF5 1.10 loses some of its own memory each time it refuses damaged metadata, which the tests
 * make it do thousands of times; fontconfig keeps a kilobyte for good.  LeakSanitizer asks these
 * functions; without it nobody calls them. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5\nleak:libfontconfig";
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void) {
    return "print_suppressions=0";
}
