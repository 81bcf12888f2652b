/* The cache of measured algorithms: lines, the file, the lock beside it. */
#include "kernels/cuda/gemm_cache.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "fnv.h"

enum { ALGO_BYTES = sizeof(cublasLtMatmulAlgo_t), LINE_CHARS = 512, LOCK_TRIES = 6000 };
static const struct timespec lock_pause = {0, 10 * 1000 * 1000}; /* LOCK_TRIES of them: a minute */

static const char separator[] = " | ";

struct GemmCache {
    char *path; /* NULL: nothing is kept */
    int lock, lock_depth;
    bool told_of_damage;
};

/* ---- one line */

static void write_line(FILE *file, const char *key, const struct GemmChoice *choice) {
    char line[LINE_CHARS], hex[2 * ALGO_BYTES + 1];
    const uint8_t *bytes = (const uint8_t *)&choice->algo;
    for (int i = 0; i < ALGO_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    int n = snprintf(line, sizeof line, "%s%s%s %.1f us%s%s", key, separator,
                     choice->fused ? "fused" : "separate", choice->microseconds, separator, hex);
    TMD_CHECK(n < LINE_CHARS, "a key of %zu characters", strlen(key));
    fprintf(file, "%s%s%016" PRIx64 "\n", line, separator, fnv_hash(line, (size_t)n));
}

/* Cuts what follows the last separator off the text; NULL if there is none. */
static char *cut_last_field(char *text) {
    char *field = NULL;
    for (char *at = text; (at = strstr(at, separator)); at++) field = at;
    if (!field) return NULL;
    *field = '\0';
    return field + strlen(separator);
}

static bool parse_algo(const char *hex, cublasLtMatmulAlgo_t *algo) {
    uint8_t bytes[ALGO_BYTES];
    if (strlen(hex) != 2 * ALGO_BYTES) return false;
    for (int i = 0; i < ALGO_BYTES; i++)
        if (sscanf(hex + 2 * i, "%2" SCNx8, &bytes[i]) != 1) return false;
    memcpy(algo, bytes, sizeof bytes);
    return true;
}

/* Leaves the key in `line`. */
static bool parse_line(char *line, struct GemmChoice *out) {
    line[strcspn(line, "\n")] = '\0';
    char *check = cut_last_field(line), way[16];
    uint64_t expected = fnv_hash(line, strlen(line)), got;
    if (!check || sscanf(check, "%" SCNx64, &got) != 1 || got != expected) return false;
    char *algo = cut_last_field(line), *measured = algo ? cut_last_field(line) : NULL;
    if (!measured || !parse_algo(algo, &out->algo)) return false;
    if (sscanf(measured, "%15s %f us", way, &out->microseconds) != 2) return false;
    out->fused = strcmp(way, "fused") == 0;
    return out->fused || strcmp(way, "separate") == 0;
}

/* ---- the file */

/* Calls visit(context, key, choice) for every good line, until it returns false. */
static void walk(struct GemmCache *cache,
                 bool (*visit)(void *context, const char *key, const struct GemmChoice *choice),
                 void *context) {
    FILE *file = fopen(cache->path, "re");
    if (!file) return;
    char *line = NULL;
    size_t n_allocated = 0;
    for (int number = 1; getline(&line, &n_allocated, file) >= 0; number++) {
        struct GemmChoice choice;
        if (line[0] == '#') continue;
        if (parse_line(line, &choice)) {
            if (!visit(context, line, &choice)) break;
        } else if (!cache->told_of_damage) {
            fprintf(stderr, "tmd: %s:%d: not a line of this cache; such lines are passed over\n",
                    cache->path, number);
            cache->told_of_damage = true;
        }
    }
    free(line);
    fclose(file);
}

struct Search {
    const char *key;
    struct GemmChoice *out;
    bool found;
};

static bool visit_search(void *context, const char *key, const struct GemmChoice *choice) {
    struct Search *search = context;
    search->found = strcmp(key, search->key) == 0;
    if (search->found) *search->out = *choice;
    return !search->found;
}

bool gemm_cache_find(struct GemmCache *cache, const char *key, struct GemmChoice *out) {
    struct Search search = {key, out, false};
    if (cache->path) walk(cache, visit_search, &search);
    return search.found;
}

struct Rewrite {
    FILE *file;
    const char *key; /* its line is not copied */
};

static bool visit_rewrite(void *context, const char *key, const struct GemmChoice *choice) {
    struct Rewrite *rewrite = context;
    if (strcmp(key, rewrite->key) != 0) write_line(rewrite->file, key, choice);
    return true;
}

static void give_up(struct GemmCache *cache, const char *what) {
    fprintf(stderr, "tmd: %s: %s: %s; the fastest matrix products are not kept for later runs\n",
            what, "cannot be written", strerror(errno));
    free(cache->path);
    cache->path = NULL;
}

void gemm_cache_store(struct GemmCache *cache, const char *key, const struct GemmChoice *choice) {
    if (!cache->path) return;
    char *partial = xprintf("%s.%ld", cache->path, (long)getpid());
    FILE *file = fopen(partial, "we");
    bool written = file;
    if (file) {
        fprintf(file, "# The fastest matrix products of this device, as measured by tmd.\n"
                      "# Without this file they are measured again.\n");
        walk(cache, visit_rewrite, &(struct Rewrite){file, key});
        write_line(file, key, choice);
        written = !ferror(file);
        if (fclose(file) != 0) written = false;
    }
    if (!written || rename(partial, cache->path) != 0) {
        give_up(cache, partial);
        unlink(partial);
    }
    free(partial);
}

/* ---- the lock */

void gemm_cache_lock(struct GemmCache *cache) {
    if (cache->lock_depth++ > 0 || !cache->path) return;
    char *path = xprintf("%s.lock", cache->path);
    cache->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (cache->lock < 0) give_up(cache, path);
    for (int i = 0; cache->lock >= 0 && i < LOCK_TRIES; i++) {
        if (flock(cache->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) break;
        nanosleep(&lock_pause, NULL);
    }
    free(path);
}

void gemm_cache_unlock(struct GemmCache *cache) {
    if (--cache->lock_depth > 0 || cache->lock < 0) return;
    close(cache->lock);
    cache->lock = -1;
}

/* ---- its place */

static void make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0777); /* where that fails, the first store tells */
        *slash = '/';
    }
}

struct GemmCache *gemm_cache_open(const char *device, size_t library_version) {
    struct GemmCache *cache = xcalloc(sizeof *cache);
    cache->lock = -1;
    const char *folder = getenv("TMD_CACHE_DIR"), *home = getenv("HOME");
    char *name = xprintf("gemm-%s-%zu.txt", device, library_version);
    for (char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '.') *c = '-';
    if (folder && folder[0])
        cache->path = xprintf("%s/%s", folder, name);
    else if (home && home[0])
        cache->path = xprintf("%s/.cache/tmd/%s", home, name);
    if (cache->path) make_folders(cache->path);
    free(name);
    return cache;
}

void gemm_cache_close(struct GemmCache *cache) {
    if (cache) free(cache->path);
    free(cache);
}
