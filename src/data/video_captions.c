#include "data/video_captions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dataset.h"
#include "data/utf8.h"

struct Line {
    char *name, *caption; /* one block of memory, at `name` */
};

struct Captions {
    char *path;
    struct Line *lines;
    int64_t n_lines, capacity;
};

static const struct Line *find_line(const struct Captions *captions, const char *name,
                                    size_t length) {
    for (int64_t i = 0; i < captions->n_lines; i++) {
        const struct Line *line = &captions->lines[i];
        if (strlen(line->name) == length && memcmp(line->name, name, length) == 0) return line;
    }
    return NULL;
}

/* What is wrong with a line of n_bytes bytes; NULL: nothing. */
static const char *find_problem(const struct Captions *captions, const char *text, size_t n_bytes) {
    const char *tab = strchr(text, '\t');
    if (strlen(text) != n_bytes || !utf8_valid(text)) return "is not valid UTF-8 text";
    if (!tab || tab == text || !tab[1]) return "is not name<TAB>caption";
    if (strlen(tab + 1) > DATASET_MAX_PROMPT_BYTES) return "is too long";
    if (find_line(captions, text, (size_t)(tab - text))) return "repeats a name";
    return NULL;
}

static void add_line(struct Captions *captions, const char *text) {
    if (captions->n_lines == captions->capacity) {
        captions->capacity = captions->capacity ? 2 * captions->capacity : 64;
        captions->lines =
            xrealloc(captions->lines, (unsigned long)captions->capacity * sizeof *captions->lines);
    }
    char *name = xstrdup(text), *tab = strchr(name, '\t');
    *tab = '\0';
    captions->lines[captions->n_lines++] = (struct Line){name, tab + 1};
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
        const char *problem = find_problem(captions, text, (size_t)n_bytes);
        if (problem)
            good = error_set(err, "'%s', line %lld %s", captions->path, (long long)number, problem);
        else
            add_line(captions, text);
    }
    free(text);
    return good;
}

struct Captions *captions_open(const char *path, struct Error *err) {
    enum { MAX_FILE_BYTES = 256 << 20 };
    struct stat status;
    FILE *in = fopen(path, "r");
    if (!in || fstat(fileno(in), &status) != 0) {
        error_set(err, "cannot open '%s': %s", path, strerror(errno));
        if (in) fclose(in);
        return NULL;
    }
    struct Captions *captions = xcalloc(sizeof *captions);
    captions->path = xstrdup(path);
    bool good = S_ISREG(status.st_mode) && status.st_size <= MAX_FILE_BYTES;
    if (!good) error_set(err, "'%s' is not a text file of at most %d bytes", path, MAX_FILE_BYTES);
    good = good && read_lines(captions, in, err);
    fclose(in);
    if (good) return captions;
    captions_close(captions);
    return NULL;
}

const char *captions_find(const struct Captions *captions, const char *video_path,
                          struct Error *err) {
    const char *slash = strrchr(video_path, '/'), *name = slash ? slash + 1 : video_path;
    const char *dot = strrchr(name, '.');
    const struct Line *line = find_line(captions, name, strlen(name));
    if (!line && dot) line = find_line(captions, name, (size_t)(dot - name));
    if (line) return line->caption;
    error_set(err, "'%s' has no line for the video '%s'", captions->path, name);
    return NULL;
}

void captions_close(struct Captions *captions) {
    if (!captions) return;
    for (int64_t i = 0; i < captions->n_lines; i++) free(captions->lines[i].name);
    free(captions->lines);
    free(captions->path);
    free(captions);
}
