/* The lines are read into memory and sorted by name; a caption is found by binary search. */
#include "data/video_captions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dataset.h"
#include "data/file_io.h"
#include "data/utf8.h"

struct Line {
    char *name, *caption; /* one block of memory, at `name` */
    int64_t number;       /* in the file, from 1 */
};

struct Captions {
    char *path;
    struct Line *lines; /* by name, once all are read */
    int64_t n_lines, capacity;
};

/* What is wrong with a line of n_bytes bytes; NULL: nothing. */
static const char *find_problem(const char *text, size_t n_bytes) {
    const char *tab = strchr(text, '\t');
    if (strlen(text) != n_bytes || !utf8_valid(text)) return "is not valid UTF-8 text";
    if (!tab || tab == text || !tab[1]) return "is not name<TAB>caption";
    if (strlen(tab + 1) > DATASET_MAX_PROMPT_BYTES) return "is too long";
    return NULL;
}

static void add_line(struct Captions *captions, const char *text, int64_t number) {
    if (captions->n_lines == captions->capacity) {
        captions->capacity = captions->capacity ? 2 * captions->capacity : 64;
        captions->lines =
            xrealloc(captions->lines, (unsigned long)captions->capacity * sizeof *captions->lines);
    }
    char *name = xstrdup(text), *tab = strchr(name, '\t');
    *tab = '\0';
    captions->lines[captions->n_lines++] = (struct Line){name, tab + 1, number};
}

static bool line_error(const struct Captions *captions, int64_t number, const char *problem,
                       struct Error *err) {
    return error_set(err, "'%s', line %lld %s", captions->path, (long long)number, problem);
}

static bool read_lines(struct Captions *captions, FILE *in, struct Error *err) {
    char *text = NULL;
    size_t capacity = 0;
    bool good = true;
    ssize_t n_bytes;
    for (int64_t number = 1; good && (n_bytes = getline(&text, &capacity, in)) >= 0; number++) {
        while (n_bytes > 0 && (text[n_bytes - 1] == '\n' || text[n_bytes - 1] == '\r'))
            text[--n_bytes] = '\0';
        if (n_bytes == 0) continue;
        const char *problem = find_problem(text, (size_t)n_bytes);
        if (problem)
            good = line_error(captions, number, problem, err);
        else
            add_line(captions, text, number);
    }
    if (good && ferror(in))
        good = error_set(err, "%s: cannot be read: %s", captions->path, strerror(errno));
    free(text);
    return good;
}

static int compare_names(const void *left, const void *right) {
    return strcmp(((const struct Line *)left)->name, ((const struct Line *)right)->name);
}

/* Then in the order of the file. */
static int compare_lines(const void *left, const void *right) {
    int64_t a = ((const struct Line *)left)->number, b = ((const struct Line *)right)->number;
    int by_name = compare_names(left, right);
    return by_name ? by_name : a < b ? -1 : a > b;
}

/* Sorts the lines by name, of which each may occur once. */
static bool sort_lines(struct Captions *captions, struct Error *err) {
    if (captions->n_lines == 0) return true;
    qsort(captions->lines, (size_t)captions->n_lines, sizeof *captions->lines, compare_lines);
    for (int64_t i = 1; i < captions->n_lines; i++)
        if (compare_names(&captions->lines[i - 1], &captions->lines[i]) == 0)
            return line_error(captions, captions->lines[i].number, "repeats a name", err);
    return true;
}

struct Captions *captions_open(const char *path, struct Error *err) {
    enum { MAX_FILE_BYTES = 256 << 20 };
    struct stat status;
    FILE *in = file_open_stream(path, err);
    if (!in) return NULL;
    struct Captions *captions = xcalloc(sizeof *captions);
    captions->path = xstrdup(path);
    bool good = fstat(fileno(in), &status) == 0 && status.st_size <= MAX_FILE_BYTES;
    if (!good) error_set(err, "'%s' is not a text file of at most %d bytes", path, MAX_FILE_BYTES);
    good = good && read_lines(captions, in, err) && sort_lines(captions, err);
    fclose(in);
    if (good) return captions;
    captions_close(captions);
    return NULL;
}

static const struct Line *find_line(const struct Captions *captions, char *name) {
    struct Line wanted = {.name = name};
    if (captions->n_lines == 0) return NULL;
    return bsearch(&wanted, captions->lines, (size_t)captions->n_lines, sizeof wanted,
                   compare_names);
}

const char *captions_find(const struct Captions *captions, const char *video_path,
                          struct Error *err) {
    const char *slash = strrchr(video_path, '/');
    char *name = xstrdup(slash ? slash + 1 : video_path), *dot = strrchr(name, '.');
    const struct Line *line = find_line(captions, name);
    if (!line && dot) {
        *dot = '\0';
        line = find_line(captions, name);
        *dot = '.';
    }
    if (!line)
        error_set(err, "'%s' has no line for the video '%s'", captions->path, name);
    free(name);
    return line ? line->caption : NULL;
}

void captions_close(struct Captions *captions) {
    if (!captions) return;
    for (int64_t i = 0; i < captions->n_lines; i++) free(captions->lines[i].name);
    free(captions->lines);
    free(captions->path);
    free(captions);
}
