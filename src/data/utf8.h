/* UTF-8 (RFC 3629): the encoding of every stored text. */
#ifndef TMD_DATA_UTF8_H
#define TMD_DATA_UTF8_H

#include <stdbool.h>

/* Whether the bytes up to the terminating zero are UTF-8: no stray or missing continuation bytes,
 * no overlong forms, no surrogates, nothing beyond U+10FFFF. */
bool utf8_valid(const char *text);

#endif
