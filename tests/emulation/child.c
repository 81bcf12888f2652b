/* Bodies run in a forked process, whose stderr comes back through a pipe. */
#include "child.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT_BYTES = 16 * 1024, EXIT_FALSE = 99 };

struct End {
    int status;            /* as from waitpid */
    char text[TEXT_BYTES]; /* the first of what it wrote to stderr */
};

static void run_child(int out, const char *name, const char *value, bool (*body)(void)) {
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    dup2(out, STDERR_FILENO);
    if (name) setenv(name, value, 1);
    bool good = body();
    fflush(NULL);
    _exit(good ? 0 : EXIT_FALSE);
}

static void read_all(int in, char *text) {
    size_t n = 0;
    char rest[256];
    ssize_t got;
    while (n < TEXT_BYTES - 1 && (got = read(in, text + n, TEXT_BYTES - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    while (read(in, rest, sizeof rest) > 0) continue;
}

static struct End end_of_child(const char *name, const char *value, bool (*body)(void)) {
    struct End end;
    int ends[2];
    fflush(NULL);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) run_child(ends[1], name, value, body);
    close(ends[1]);
    read_all(ends[0], end.text);
    close(ends[0]);
    assert_int_equal(waitpid(child, &end.status, 0), child);
    return end;
}

static void require_message(const struct End *end, const char *message) {
    if (!strstr(end->text, message))
        fail_msg("expected \"%s\", the process ended (status 0x%x) with \"%s\"", message,
                 (unsigned)end->status, end->text);
}

static void require_abort(const struct End *end, const char *message) {
    require_message(end, message);
    assert_true(WIFSIGNALED(end->status) && WTERMSIG(end->status) == SIGABRT);
}

void expect_rejected(bool (*body)(void), const char *message) {
    struct End end = end_of_child(NULL, NULL, body);
    require_message(&end, "emulated device: ");
    require_abort(&end, message);
}

void expect_abort(bool (*body)(void), const char *message) {
    struct End end = end_of_child(NULL, NULL, body);
    require_abort(&end, message);
}

void expect_overrun_rejected(bool (*body)(void), const char *message) {
    struct End end = end_of_child(NULL, NULL, body);
    if (!strstr(end.text, "AddressSanitizer: use-after-poison")) require_abort(&end, message);
}

void expect_true_with(const char *name, const char *value, bool (*body)(void)) {
    expect_exit_with(name, value, body, 0, "");
}

void expect_exit_with(const char *name, const char *value, bool (*body)(void), int exit_code,
                      const char *message) {
    struct End end = end_of_child(name, value, body);
    require_message(&end, message);
    if (!WIFEXITED(end.status) || WEXITSTATUS(end.status) != exit_code)
        fail_msg("expected exit code %d, the process ended (status 0x%x) with \"%s\"", exit_code,
                 (unsigned)end.status, end.text);
}
