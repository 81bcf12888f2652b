/* Splits a prompt into words, hashes each, and draws its row with Philox keyed by the hash. */
#include "data/toy_text.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "fnv.h"
#include "philox.h"

static bool is_word_byte(unsigned char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= 'a' && byte <= 'z') || byte > 127;
}

static uint64_t hash_lower(const unsigned char *word, size_t n_bytes) {
    uint64_t hash = FNV_START;
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char lower = word[i] >= 'A' && word[i] <= 'Z' ? word[i] + ('a' - 'A') : word[i];
        hash = fnv_byte(hash, lower);
    }
    return hash;
}

/* Box-Muller: one Philox counter gives a pair of normals from its first two words. */
static void fill_row(float *row, int64_t text_dim, uint64_t key) {
    const double two_pi = 6.283185307179586;
    for (int64_t i = 0; i < text_dim; i += 2) {
        struct Philox bits = philox(key, (uint32_t)(i / 2), 0, 0, 0);
        double radius = sqrt(-2.0 * log(philox_uniform(bits.word[0])));
        double angle = two_pi * philox_uniform(bits.word[1]);
        row[i] = (float)(radius * cos(angle));
        if (i + 1 < text_dim) row[i + 1] = (float)(radius * sin(angle));
    }
}

int64_t toy_text_embed(const char *prompt, int64_t text_dim, float *rows, int64_t max_rows) {
    const unsigned char *at = (const unsigned char *)prompt;
    int64_t n_words = 0;
    for (;;) {
        while (*at && !is_word_byte(*at)) at++;
        if (!*at) return n_words;
        const unsigned char *word = at;
        while (is_word_byte(*at)) at++;
        if (n_words < max_rows)
            fill_row(rows + n_words * text_dim, text_dim, hash_lower(word, (size_t)(at - word)));
        n_words++;
    }
}
