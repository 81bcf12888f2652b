/* The folder is its own index: everything follows from the names in it. */
#include "data/checkpoint_folder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/checkpoint_contents.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"

#define STEP_PREFIX "step-"
#define STEP_SUFFIX ".h5"
#define PARTIAL_SUFFIX ".h5.partial"
#define SHARDS_INFIX ".shards-"
#define SHARD_PREFIX "rank-"
enum { ID_DIGITS = 16 };

/* ---- names ---- */

struct Steps {
    int64_t *iterations; /* descending */
    int64_t n;
};

char *ckpt_step_path(const char *folder, int64_t iteration) {
    return xprintf("%s/" STEP_PREFIX "%08lld" STEP_SUFFIX, folder, (long long)iteration);
}

char *ckpt_shards_name(int64_t iteration, int64_t save_id) {
    return xprintf(STEP_PREFIX "%08lld" SHARDS_INFIX "%016llx", (long long)iteration,
                   (unsigned long long)save_id);
}

/* The iteration of "step-<8 to 18 digits>..." and what follows the digits, or -1. */
static int64_t parse_step(const char *name, const char **rest) {
    size_t n_prefix = strlen(STEP_PREFIX), n_digits = 0;
    if (strncmp(name, STEP_PREFIX, n_prefix) != 0) return -1;
    const char *digits = name + n_prefix;
    while (isdigit((unsigned char)digits[n_digits])) n_digits++;
    if (n_digits < 8 || n_digits > 18) return -1;
    if (n_digits > 8 && digits[0] == '0') return -1; /* not how we would spell it */
    *rest = digits + n_digits;
    return strtoll(digits, NULL, 10);
}

/* The same of a name with that suffix and nothing between. */
static int64_t parse_name(const char *name, const char *suffix) {
    const char *rest;
    int64_t iteration = parse_step(name, &rest);
    return iteration >= 0 && strcmp(rest, suffix) == 0 ? iteration : -1;
}

/* Is it a name of ckpt_shards_name? */
static bool parse_shards_name(const char *name, int64_t *iteration, int64_t *save_id) {
    const char *rest;
    size_t n_infix = strlen(SHARDS_INFIX);
    *iteration = parse_step(name, &rest);
    if (*iteration < 0 || strncmp(rest, SHARDS_INFIX, n_infix) != 0) return false;
    rest += n_infix;
    if (strlen(rest) != ID_DIGITS || strspn(rest, "0123456789abcdef") != ID_DIGITS) return false;
    *save_id = (int64_t)strtoull(rest, NULL, 16);
    return true;
}

/* ---- shards and leftovers ---- */

/* Removes the shards, finished or not, in an open folder. */
static void remove_shard_files(DIR *dir) {
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strncmp(entry->d_name, SHARD_PREFIX, strlen(SHARD_PREFIX)) == 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
}

/* Is there no checkpoint that these shards belong to?  One that cannot be opened is not judged. */
static bool are_orphans(const char *folder, int64_t iteration, int64_t save_id) {
    char *path = ckpt_step_path(folder, iteration);
    struct Error err;
    hid_t file;
    int64_t own_id;
    bool orphans = access(path, F_OK) != 0 && errno == ENOENT;
    if (!orphans && h5_open_read(path, &file, &err)) {
        orphans = !h5_attr_exists(file, CKPT_KEY_SAVE_ID) ||
                  (h5_attr_read_i64(file, CKPT_KEY_SAVE_ID, &own_id, &err) && own_id != save_id);
        H5Fclose(file);
    }
    free(path);
    return orphans;
}

void ckpt_shards_remove(const char *folder, int64_t iteration, int64_t save_id) {
    if (!are_orphans(folder, iteration, save_id)) return;
    char *name = ckpt_shards_name(iteration, save_id), *path = xprintf("%s/%s", folder, name);
    /* a symbolic link of that name leads to what is not ours */
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = descriptor >= 0 ? fdopendir(descriptor) : NULL;
    if (dir) {
        remove_shard_files(dir);
        closedir(dir);
        rmdir(path);
    }
    free(path);
    free(name);
}

void ckpt_folder_sweep(const char *folder, int64_t live_id) {
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int64_t iteration, save_id;
        if (parse_name(entry->d_name, PARTIAL_SUFFIX) >= 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
        else if (parse_shards_name(entry->d_name, &iteration, &save_id) && save_id != live_id)
            ckpt_shards_remove(folder, iteration, save_id);
    }
    if (dir) closedir(dir);
}

/* Removes the shards of all saves of an iteration. */
static void remove_step_shards(const char *folder, int64_t iteration) {
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int64_t found, save_id;
        if (parse_shards_name(entry->d_name, &found, &save_id) && found == iteration)
            ckpt_shards_remove(folder, iteration, save_id);
    }
    if (dir) closedir(dir);
}

/* ---- the checkpoints of the folder ---- */

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

bool ckpt_is_intact(const char *path, int part, int n_parts, struct Error *reason) {
    struct Ckpt *ckpt;
    if (!ckpt_open(path, &ckpt, reason)) return false;
    bool intact = ckpt_verify_part(ckpt, part, n_parts, reason);
    ckpt_close(ckpt);
    return intact;
}

bool ckpt_newest_valid(const char *folder, char **path, CkptJudge *judge, void *context,
                       struct Error *err) {
    struct Steps steps;
    *path = NULL;
    if (!list_steps(folder, &steps, err)) return false;
    for (int64_t i = 0; i < steps.n && !*path; i++) {
        char *candidate = ckpt_step_path(folder, steps.iterations[i]);
        if (judge(context, candidate))
            *path = candidate;
        else
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

/* The file first: a checkpoint that lost some of its shards only would look damaged. */
static bool remove_step(const char *folder, int64_t iteration, const char *path,
                        struct Error *err) {
    if (unlink(path) != 0)
        return error_set(err, "%s: cannot be removed: %s", path, strerror(errno));
    remove_step_shards(folder, iteration);
    return true;
}

bool ckpt_rotate(const char *folder, int64_t keep_last, int64_t keep_every, const char *intact,
                 struct Error *err) {
    TMD_CHECK(keep_last >= 1 && keep_every >= 0, "keep_last %lld, keep_every %lld",
              (long long)keep_last, (long long)keep_every);
    struct Steps steps;
    bool rotated = list_steps(folder, &steps, err);
    for (int64_t i = keep_last; rotated && i < steps.n; i++) {
        if (keep_every > 0 && steps.iterations[i] % keep_every == 0) continue;
        char *path = ckpt_step_path(folder, steps.iterations[i]);
        if (!same_file(path, intact))
            rotated = remove_step(folder, steps.iterations[i], path, err);
        free(path);
    }
    free(steps.iterations);
    return rotated;
}
