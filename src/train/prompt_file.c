/* Reads the file as a whole and cuts it into lines in place. */
#include "train/prompt_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/dataset.h"
#include "data/file_io.h"
#include "data/utf8.h"

static bool read_text(char **text, const char *path, struct Error *err) {
    int fd;
    int64_t n_bytes;
    *text = NULL;
    if (!file_open_read(path, &fd, &n_bytes, err)) return false;
    bool ok = n_bytes <= PROMPT_FILE_MAX_BYTES ||
              error_set(err, "%s: expected at most %d bytes of prompts, got %lld", path,
                        PROMPT_FILE_MAX_BYTES, (long long)n_bytes);
    if (ok) {
        *text = xcalloc((size_t)n_bytes + 1);
        ok = file_read_at(fd, path, *text, n_bytes, 0, err) &&
             (strlen(*text) == (size_t)n_bytes || error_set(err, "%s: holds a NUL byte", path));
    }
    close(fd);
    return ok;
}

static bool add_line(struct PromptFile *file, char *line, struct Error *err) {
    line[strcspn(line, "\r")] = '\0';
    if (!*line || *line == '#') return true;
    if (!utf8_valid(line))
        return error_set(err, "prompt %lld is not UTF-8", (long long)file->n + 1);
    if (strlen(line) > DATASET_MAX_PROMPT_BYTES)
        return error_set(err, "prompt %lld has more than %d bytes", (long long)file->n + 1,
                         DATASET_MAX_PROMPT_BYTES);
    file->lines[file->n++] = line;
    return true;
}

static bool split_lines(struct PromptFile *file, struct Error *err) {
    int64_t n_lines = 1;
    for (const char *c = file->text; *c; c++) n_lines += *c == '\n';
    file->lines = xcalloc((size_t)n_lines * sizeof *file->lines);
    for (char *rest = file->text, *line; (line = strsep(&rest, "\n"));)
        if (!add_line(file, line, err)) return false;
    return file->n > 0 || error_set(err, "expected a prompt on every line, got no line");
}

bool prompt_file_read(struct PromptFile *file, const char *path, struct Error *err) {
    *file = (struct PromptFile){0};
    return read_text(&file->text, path, err) &&
           (split_lines(file, err) || error_prefix(err, "%s", path));
}

void prompt_file_free(struct PromptFile *file) {
    free(file->text);
    free(file->lines);
    *file = (struct PromptFile){0};
}
