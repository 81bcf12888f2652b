/* Errors, of two kinds.
 *
 * 1. What a user or a file got wrong.  The function returns false and fills `struct Error` with one
 *    sentence that names what, where, expected and got.  Nothing is printed on the way; the command
 *    that asked prints it once and exits with `exit_code`.
 * 2. What must never happen (broken invariants, failed device or MPI calls): TMD_CHECK prints
 *    expression, file, line, host and rank, and ends every rank. */
#ifndef TMD_ERROR_H
#define TMD_ERROR_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" { /* kernels are C++ */
#endif

enum ExitCode {
    EXIT_OK = 0,
    EXIT_FAILED = 1,      /* the work was done and its verdict is "no" (a tolerance, a check) */
    EXIT_USER = 2,        /* the user's mistake: a flag, a key, a file */
    EXIT_DIVERGED = 3,    /* too many non-finite steps in a row */
    EXIT_STUCK = 4,       /* no rank moved for train.watchdog seconds */
    EXIT_INTERRUPTED = 75 /* SIGTERM or SIGUSR1: a checkpoint was written; start again to go on */
};

struct Error {
    int exit_code; /* an enum ExitCode; error_set puts EXIT_USER */
    char text[1024];
};

/* Fills `err` (printf format).  Returns false, so that a caller can write `return error_set(...)`. */
bool error_set(struct Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "context: " before a message that a callee left.  Returns false. */
bool error_prefix(struct Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints "tmd: <text>", control characters as "?", on stderr and returns the exit code. */
int error_report(const struct Error *err);

/* What ends all ranks; set once by the communicator, before any thread starts.  Default: abort(). */
void fatal_set_handler(int rank, void (*end_all_ranks)(int exit_code));
/* Does that, or ends this process where nothing was set; what there is to say has been said. */
void fatal_end_all_ranks(int exit_code) __attribute__((noreturn));

void fatal_at(const char *file, int line, const char *expression, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));

#define TMD_CHECK(expression, ...)                                                                 \
    do {                                                                                           \
        if (!(expression)) fatal_at(__FILE__, __LINE__, #expression, __VA_ARGS__);                 \
    } while (0)

/* malloc / calloc that end the program when memory is out; for set-up code, never inside a step. */
void *xmalloc(unsigned long n_bytes) __attribute__((returns_nonnull));
void *xcalloc(unsigned long n_bytes) __attribute__((returns_nonnull));
void *xrealloc(void *old, unsigned long n_bytes) __attribute__((returns_nonnull));
char *xstrdup(const char *text) __attribute__((returns_nonnull));
/* printf into fresh memory that the caller frees. */
char *xprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif

#endif
