/* Tests of what must end a program: the mistake is made in a child process. */
#ifndef TMD_TEST_CHILD_H
#define TMD_TEST_CHILD_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Fails the test unless body() ends its process by the emulated device's refusal, with `message` in
 * what it wrote to stderr. */
void expect_rejected(bool (*body)(void), const char *message);

/* The same for whoever aborts the process: the emulated device, or a broken invariant. */
void expect_abort(bool (*body)(void), const char *message);

/* The same for a touch of memory beside an allocation or array, which the address sanitizer, where
 * it is at work, may see first. */
void expect_overrun_rejected(bool (*body)(void), const char *message);

/* Fails the test unless body() returns true in a process that starts with the environment variable
 * `name` set to `value`. */
void expect_true_with(const char *name, const char *value, bool (*body)(void));

/* Fails the test unless body() ends its process by exit(exit_code), or by returning for 0. */
void expect_exit_with(const char *name, const char *value, bool (*body)(void), int exit_code,
                      const char *message);

#ifdef __cplusplus
}
#endif

#endif
