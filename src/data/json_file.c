/* jansson with limits and with messages that quote nothing. */
#include "data/json_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/atomic_file.h"
#include "data/file_io.h"

json_t *json_parse(const char *text, size_t n_bytes, struct Error *err) {
    json_error_t where;
    json_t *root = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &where);
    if (root) return root;
    char *quote =
        strstr(where.text, " near '"); /* what follows is jansson's quotation of the text */
    if (quote) *quote = '\0';
    error_set(err, "not valid JSON at byte %d: %s", where.position, where.text);
    return NULL;
}

json_t *json_file_load(const char *path, struct Error *err) {
    int fd;
    int64_t n_bytes;
    json_t *root = NULL;
    if (!file_open_read(path, &fd, &n_bytes, err)) return NULL;
    if (n_bytes > JSON_MAX_BYTES) {
        error_set(err, "%s: %lld bytes of JSON; at most %d are read", path, (long long)n_bytes,
                  JSON_MAX_BYTES);
    } else {
        char *text = xmalloc((size_t)n_bytes);
        if (file_read_at(fd, path, text, n_bytes, 0, err)) {
            root = json_parse(text, (size_t)n_bytes, err);
            if (!root) error_prefix(err, "%s", path);
        }
        free(text);
    }
    close(fd);
    return root;
}

bool json_file_save(const char *path, const json_t *root, struct Error *err) {
    enum { DIGITS = 15 }; /* all that a decimal number keeps through a double: 1e-06 stays 1e-06 */
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(DIGITS));
    TMD_CHECK(text, "%s: what is to be written is no JSON", path);
    char *line = xprintf("%s\n", text);
    bool written = atomic_file_write(path, line, strlen(line), err);
    free(line);
    free(text);
    return written;
}
