/* Messages are formatted into the caller's struct Error; fatal errors are printed here and end all
 * ranks. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The only process-wide state of the program: who to tell when everything must end. */
static struct {
    int rank;
    void (*end_all_ranks)(int exit_code);
} fatal_handler;

bool error_set(struct Error *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    err->exit_code = EXIT_USER;
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    return false;
}

bool error_prefix(struct Error *err, const char *format, ...) {
    char old[sizeof err->text], context[sizeof err->text / 2];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    int room = (int)(sizeof err->text - strlen(context) - sizeof ": ");
    snprintf(err->text, sizeof err->text, "%s: %.*s", context, room, old);
    return false;
}

/* What a file holds may stand in a message, but breaks no line and commands no terminal. */
static void hide_control_characters(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
}

int error_report(const struct Error *err) {
    struct Error plain = *err;
    hide_control_characters(plain.text);
    fprintf(stderr, "tmd: %s\n", plain.text);
    return err->exit_code;
}

void fatal_set_handler(int rank, void (*end_all_ranks)(int exit_code)) {
    fatal_handler.rank = rank;
    fatal_handler.end_all_ranks = end_all_ranks;
}

void fatal_end_all_ranks(int exit_code) {
    fflush(NULL);
    if (fatal_handler.end_all_ranks) fatal_handler.end_all_ranks(exit_code);
    exit(exit_code);
}

void fatal_at(const char *file, int line, const char *expression, const char *format, ...) {
    char host[64] = "?", what[768];
    gethostname(host, sizeof host - 1);
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    fprintf(stderr, "tmd: fatal: %s (%s failed at %s:%d, host %s, rank %d)\n", what, expression, file,
            line, host, fatal_handler.rank);
    fflush(NULL);
    if (fatal_handler.end_all_ranks) fatal_handler.end_all_ranks(EXIT_FAILED);
    abort();
}

void *xmalloc(unsigned long n_bytes) {
    void *p = malloc(n_bytes ? n_bytes : 1);
    TMD_CHECK(p, "out of memory: asked for %lu bytes", n_bytes);
    return p;
}

void *xcalloc(unsigned long n_bytes) {
    return memset(xmalloc(n_bytes), 0, n_bytes);
}

void *xrealloc(void *old, unsigned long n_bytes) {
    void *p = realloc(old, n_bytes ? n_bytes : 1);
    TMD_CHECK(p, "out of memory: asked for %lu bytes", n_bytes);
    return p;
}

char *xstrdup(const char *text) {
    size_t n_bytes = strlen(text) + 1;
    return memcpy(xmalloc(n_bytes), text, n_bytes);
}

char *xprintf(const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n_chars = vsnprintf(NULL, 0, format, args);
    TMD_CHECK(n_chars >= 0, "format '%s' cannot be printed", format);
    char *text = xmalloc((unsigned long)n_chars + 1);
    vsnprintf(text, (size_t)n_chars + 1, format, again);
    va_end(again);
    va_end(args);
    return text;
}
