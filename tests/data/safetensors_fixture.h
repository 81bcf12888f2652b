/* What the tests of safetensors share: files written by hand, good ones opened, bad ones refused.
 * Any failure is the running test's. */
#ifndef TMD_TESTS_SAFETENSORS_FIXTURE_H
#define TMD_TESTS_SAFETENSORS_FIXTURE_H

#include <stddef.h>

#include "data/safetensors.h"

/* Writes a file of a header's length, the header [n_header] and the data [n_data]. */
void write_parts(const char *path, const char *header, size_t n_header, const void *data,
                 size_t n_data);

/* The file opens; the caller closes it. */
struct Safetensors *open_good(const char *path);
/* The file does not open, with a sentence that names it and says `what`. */
void assert_refused(const char *path, const char *what);
/* The error is a user's, on one line, and has both texts in it. */
void assert_one_sentence(const struct Error *err, const char *path, const char *what);

#endif
