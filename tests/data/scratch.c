/* Folders come from mkdtemp and are removed with all they hold. */
#define _GNU_SOURCE /* nftw, memmem */
#include "scratch.h"

#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

int scratch_set_up(void **state) {
    *state = scratch_make();
    return 0;
}

int scratch_tear_down(void **state) {
    scratch_remove(*state);
    return 0;
}

enum { MAX_FILES = 4 };
static char *group_folder, *group_files[MAX_FILES];

int scratch_group_set_up(void **state) {
    (void)state;
    group_folder = scratch_make();
    return 0;
}

int scratch_group_tear_down(void **state) {
    (void)state;
    scratch_remove(group_folder);
    for (int i = 0; i < MAX_FILES; i++) free(group_files[i]);
    return 0;
}

const char *scratch_folder(void) {
    return group_folder;
}

char *scratch_file(const char *name) {
    int i = 0;
    while (i < MAX_FILES && group_files[i]) i++;
    TMD_CHECK(i < MAX_FILES, "no room for %s", name);
    return group_files[i] = scratch_path(group_folder, name);
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

void scratch_make_folder(const char *path) {
    TMD_CHECK(mkdir(path, 0777) == 0, "cannot create %s", path);
}

void scratch_remove_file(const char *path) {
    TMD_CHECK(unlink(path) == 0, "cannot remove %s", path);
}

void scratch_flip(const char *path, const void *bytes, size_t n_bytes) {
    size_t n_whole;
    unsigned char *whole = scratch_read(path, &n_whole);
    unsigned char *place = memmem(whole, n_whole, bytes, n_bytes);
    TMD_CHECK(place, "%s does not hold these bytes", path);
    place[n_bytes / 2] ^= 0x10;
    scratch_write(path, whole, n_whole);
    free(whole);
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

static void set_limit(rlim_t n_bytes) {
    struct rlimit lengths;
    getrlimit(RLIMIT_FSIZE, &lengths);
    lengths.rlim_cur = n_bytes;
    TMD_CHECK(setrlimit(RLIMIT_FSIZE, &lengths) == 0, "no limit of %llu bytes",
              (unsigned long long)n_bytes);
}

void scratch_limit_files(size_t n_bytes) {
    signal(SIGXFSZ, SIG_IGN); /* so that the write fails instead */
    set_limit(n_bytes);
}

void scratch_lift_limit(void) {
    set_limit(RLIM_INFINITY);
}

int scratch_exit_code_of(void (*run)(const char *folder, size_t limit), const char *folder,
                         size_t limit) {
    fflush(NULL);
    pid_t child = fork();
    TMD_CHECK(child >= 0, "fork failed");
    if (child == 0) {
        run(folder, limit);
        _exit(0);
    }
    int status;
    TMD_CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status), "a child that did not exit");
    return WEXITSTATUS(status);
}
