/* Checks of functions that leave a sentence in `err` (error.h), a `struct Error` of the caller.
 * Include after cmocka.h. */
#ifndef TMD_TESTS_CHECK_H
#define TMD_TESTS_CHECK_H

#include <string.h>

#include "error.h"

/* The call must succeed. */
#define check(call)                                                                                \
    do {                                                                                           \
        if (!(call)) fail_msg("%s: %s", #call, err.text);                                          \
    } while (0)

/* The call must fail and its sentence say `part`. */
#define check_error(call, part)                                                                    \
    do {                                                                                           \
        if (call) fail_msg("%s succeeded", #call);                                                 \
        if (!strstr(err.text, part)) fail_msg("expected '%s' in: %s", part, err.text);             \
    } while (0)

#endif
