/* A text embedding for toy data: one row per word, no model needed.
 *
 * The row of a word is a fixed draw from a unit Gaussian, keyed by a hash (64-bit FNV-1a) of the
 * word in lower case: equal words have equal rows, different words nearly orthogonal ones, on every
 * machine. Words are runs of ASCII letters, digits and bytes above 127; all else separates them, so
 * that case and punctuation do not matter.  Word order does: rows come in it, but carry no
 * position. */
#ifndef TMD_DATA_TOY_TEXT_H
#define TMD_DATA_TOY_TEXT_H

#include <stdint.h>

/* What dataset attributes call this encoder. */
#define TOY_TEXT_ENCODER "toy words 1"

/* Fills rows [max_rows, text_dim] from the start and leaves those beyond the last word alone.
 * Returns the number of words, which may be larger than max_rows; only max_rows rows are written
 * then. */
int64_t toy_text_embed(const char *prompt, int64_t text_dim, float *rows, int64_t max_rows);

#endif
