/* What the tests of the configuration share: a temporary folder, files in it, and expectations of
 * errors. */
#ifndef TMD_CONFIG_FIXTURE_H
#define TMD_CONFIG_FIXTURE_H

#include <stddef.h>

#include "train/config.h"

/* cmocka set-up and tear-down: makes a folder, and removes it with all that lies in it.  *state is
 * its path. */
int fixture_set_up(void **state);
int fixture_tear_down(void **state);

/* Writes a file into the folder and returns its path, which the caller frees. */
char *fixture_write(void **state, const char *name, const char *text, size_t n_bytes);
char *fixture_write_text(void **state, const char *name, const char *text);

/* Loads `text` as the file "case.yaml" over the defaults; must succeed.  The caller calls
 * config_free. */
void fixture_load(void **state, struct Config *config, const char *text);

/* `text` as the file "case.yaml" must fail to load with an error that says "case.yaml:LINE: " (for
 * a line above 0) and then exactly `message`. */
void expect_load_error(void **state, const char *text, int line, const char *message);

/* An override, over the defaults, must fail with "override 'ASSIGNMENT': " and exactly `message`.
 */
void expect_override_error(const char *assignment, const char *message);

/* The text of an error must contain a part. */
void expect_contains(const char *text, const char *part);

#endif
