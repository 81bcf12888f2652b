/* YAML text as a flat list of entries: the part of YAML that a configuration needs, and no
 * knowledge of which keys there are.
 *
 * A document is a mapping of keys to a scalar, a list of scalars, or a section; a section is a
 * mapping of keys to a scalar or a list of scalars.  The entries come in the order of the file; a
 * section is an entry of its own, followed by those inside it.  Refused: anchors, aliases, tags,
 * more than one document, deeper nesting, texts that contain a NUL character. */
#ifndef TMD_CONFIG_DOC_H
#define TMD_CONFIG_DOC_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

struct DocScalar {
    char *text;  /* UTF-8 */
    bool quoted; /* as a text in quotes or a block: never a number, a boolean or nothing */
};

enum DocKind { DOC_SCALAR, DOC_LIST, DOC_SECTION };

struct DocEntry {
    char *section; /* "" at the top level */
    char *key;
    int line; /* of the key, from 1 */
    enum DocKind kind;
    struct DocScalar *items; /* DOC_SCALAR: one; DOC_SECTION: none */
    int n_items;
};

struct Doc {
    struct DocEntry *entries;
    int n_entries;
};

/* Fills `doc`, which the caller frees with doc_free also after an error.  An empty text has no
 * entries.  An error's text names no file; *line says where it is. */
bool doc_parse(struct Doc *doc, const char *text, size_t n_bytes, int *line, struct Error *err);

/* A value alone, as it would stand after "key: "; `doc` gets one entry with empty names. */
bool doc_parse_value(struct Doc *doc, const char *text, int *line, struct Error *err);

void doc_free(struct Doc *doc);

/* "a value", "a list", "a section". */
const char *doc_kind_name(enum DocKind kind);

/* A user's text as an error message may show it: cut to a readable length, control characters
 * (which could play tricks on a terminal) as '?'. */
enum { DOC_CLIP_BYTES = 64 };
const char *doc_clip(char out[DOC_CLIP_BYTES], const char *text);

#endif
