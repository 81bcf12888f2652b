/* The folder is its own index: everything follows from the names in it. */
#include "data/checkpoint_folder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_PREFIX "step-"
#define STEP_SUFFIX ".h5"
#define PARTIAL_SUFFIX ".h5.partial"

struct Steps {
    int64_t *iterations; /* descending */
    int64_t n;
};

char *ckpt_step_path(const char *folder, int64_t iteration) {
    return xprintf("%s/" STEP_PREFIX "%08lld" STEP_SUFFIX, folder, (long long)iteration);
}

/* The iteration of "step-<8 to 18 digits><suffix>", or -1. */
static int64_t parse_name(const char *name, const char *suffix) {
    size_t n_prefix = strlen(STEP_PREFIX), n_digits = 0;
    if (strncmp(name, STEP_PREFIX, n_prefix) != 0) return -1;
    const char *digits = name + n_prefix;
    while (isdigit((unsigned char)digits[n_digits])) n_digits++;
    if (n_digits < 8 || n_digits > 18 || strcmp(digits + n_digits, suffix) != 0) return -1;
    if (n_digits > 8 && digits[0] == '0') return -1; /* not how we would spell it */
    return strtoll(digits, NULL, 10);
}

bool ckpt_is_partial_name(const char *name) {
    return parse_name(name, PARTIAL_SUFFIX) >= 0;
}

static int compare_descending(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a < b) - (a > b);
}

/* All checkpoints of the folder by their names; none if there is no such folder. */
static bool list_steps(const char *folder, struct Steps *steps, struct Error *err) {
    *steps = (struct Steps){0};
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOENT) return true;
    if (!dir) return error_set(err, "%s: cannot be listed: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        int64_t iteration = parse_name(entry->d_name, STEP_SUFFIX);
        if (iteration < 0) continue;
        steps->iterations =
            xrealloc(steps->iterations, (size_t)(steps->n + 1) * sizeof *steps->iterations);
        steps->iterations[steps->n++] = iteration;
    }
    closedir(dir);
    if (steps->n > 0)
        qsort(steps->iterations, (size_t)steps->n, sizeof *steps->iterations, compare_descending);
    return true;
}

bool ckpt_folder_count(const char *folder, int64_t *n, struct Error *err) {
    struct Steps steps;
    bool ok = list_steps(folder, &steps, err);
    *n = steps.n;
    free(steps.iterations);
    return ok;
}

static bool is_intact(const char *path, struct Error *err) {
    struct Ckpt *ckpt;
    if (!ckpt_open(path, &ckpt, err)) return false;
    bool intact = ckpt_verify(ckpt, err);
    ckpt_close(ckpt);
    return intact;
}

bool ckpt_newest_valid(const char *folder, char **path,
                       void (*skipped)(void *context, const char *path, const char *reason),
                       void *context, struct Error *err) {
    struct Steps steps;
    *path = NULL;
    if (!list_steps(folder, &steps, err)) return false;
    for (int64_t i = 0; i < steps.n && !*path; i++) {
        char *candidate = ckpt_step_path(folder, steps.iterations[i]);
        struct Error reason;
        if (is_intact(candidate, &reason)) {
            *path = candidate;
            break;
        }
        if (skipped) skipped(context, candidate, reason.text);
        free(candidate);
    }
    free(steps.iterations);
    if (steps.n > 0 && !*path)
        return error_set(err, "%s: none of the %lld checkpoints is intact", folder,
                         (long long)steps.n);
    return true;
}

/* Two names of one file?  Compared by inode, since paths can be spelt in many ways. */
static bool same_file(const char *left, const char *right) {
    struct stat a, b;
    return stat(left, &a) == 0 && stat(right, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

bool ckpt_rotate(const char *folder, int64_t keep_last, int64_t keep_every,
                 const char *protected_path, struct Error *err) {
    TMD_CHECK(keep_last >= 1 && keep_every >= 0, "keep_last %lld, keep_every %lld",
              (long long)keep_last, (long long)keep_every);
    struct Steps steps;
    char *newest = NULL;
    if (!protected_path && !ckpt_newest_valid(folder, &newest, NULL, NULL, err)) return false;
    const char *kept = protected_path ? protected_path : newest;
    bool rotated = list_steps(folder, &steps, err);
    for (int64_t i = keep_last; rotated && i < steps.n; i++) {
        if (keep_every > 0 && steps.iterations[i] % keep_every == 0) continue;
        char *path = ckpt_step_path(folder, steps.iterations[i]);
        if (!(kept && same_file(path, kept)) && unlink(path) != 0)
            rotated = error_set(err, "%s: cannot be removed: %s", path, strerror(errno));
        free(path);
    }
    free(steps.iterations);
    free(newest);
    return rotated;
}
