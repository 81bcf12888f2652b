/* Decodes character by character and checks each code point. */
#include "data/utf8.h"

#include <stdint.h>

/* The kinds of lead byte: which bits mark it, how many bytes follow it, and the smallest code point
 * that needs that many. */
static const struct {
    unsigned char mask, mark;
    int n_more;
    uint32_t smallest;
} leads[] = {
    {0x80, 0x00, 0, 0},
    {0xE0, 0xC0, 1, 0x80},
    {0xF0, 0xE0, 2, 0x800},
    {0xF8, 0xF0, 3, 0x10000},
};

/* Bytes of the first character, or 0 if it is not one. */
static int character_bytes(const unsigned char *text) {
    for (int kind = 0; kind < 4; kind++) {
        if ((text[0] & leads[kind].mask) != leads[kind].mark) continue;
        uint32_t point = text[0] & (unsigned char)~leads[kind].mask;
        for (int i = 1; i <= leads[kind].n_more; i++) {
            if ((text[i] & 0xC0) != 0x80) return 0; /* also where the text ends too early */
            point = point << 6 | (text[i] & 0x3Fu);
        }
        bool surrogate = point >= 0xD800 && point <= 0xDFFF;
        bool good = point >= leads[kind].smallest && point <= 0x10FFFF && !surrogate;
        return good ? 1 + leads[kind].n_more : 0;
    }
    return 0;
}

bool utf8_valid(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        int n_bytes = character_bytes(at);
        if (n_bytes == 0) return false;
        at += n_bytes;
    }
    return true;
}
