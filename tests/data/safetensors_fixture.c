/* Numbers are written byte by byte, as the format has them, whatever the machine's order. */
#include "safetensors_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch.h"

void write_parts(const char *path, const char *header, size_t n_header, const void *data,
                 size_t n_data) {
    unsigned char *bytes = xmalloc(8 + n_header + n_data);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)n_header >> 8 * i);
    memcpy(bytes + 8, header, n_header);
    memcpy(bytes + 8 + n_header, data, n_data);
    scratch_write(path, bytes, 8 + n_header + n_data);
    free(bytes);
}

void assert_one_sentence(const struct Error *err, const char *path, const char *what) {
    if (!strstr(err->text, path)) fail_msg("'%s' does not name '%s'", err->text, path);
    if (!strstr(err->text, what)) fail_msg("'%s' does not say '%s'", err->text, what);
    for (const char *c = err->text; *c; c++) assert_false((unsigned char)*c < 0x20);
    assert_int_equal(err->exit_code, EXIT_USER);
}

void assert_refused(const char *path, const char *what) {
    struct Safetensors *st;
    struct Error err;
    if (safetensors_open(path, &st, &err)) fail_msg("%s was accepted (%s)", path, what);
    assert_one_sentence(&err, path, what);
}

struct Safetensors *open_good(const char *path) {
    struct Safetensors *st;
    struct Error err;
    if (!safetensors_open(path, &st, &err)) fail_msg("%s", err.text);
    return st;
}
