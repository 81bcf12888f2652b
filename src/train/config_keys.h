/* The keys of the configuration: one const table from which everything else follows - defaults,
 * parsing, overrides, range checks, printing and the reference page.  To add a key, add the field
 * to struct Config and one row to config_keys.c.
 *
 * Section and key carry the names of the fields in struct Config; keys of the section "" stand at
 * the top level of the file. */
#ifndef TMD_CONFIG_KEYS_H
#define TMD_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>

enum KeyType {
    KEY_INT,         /* int64_t */
    KEY_REAL,        /* double, finite */
    KEY_BOOL,        /* bool */
    KEY_ENUM,        /* an enum whose names are `choices` */
    KEY_STRING,      /* char *, owned, UTF-8 */
    KEY_INTS,        /* int64_t[n_items] */
    KEY_REALS,       /* double[n_items] */
    KEY_INT_LIST,    /* struct IntList, at most n_items */
    KEY_STRING_LIST, /* struct StringList, at most n_items */
    KEY_BASE         /* no field: the path of the file beneath this one, for config_load alone */
};

/* Bounds of a number, of each number of a list, or of the length of a string in bytes. */
struct KeyRange {
    double min, max;           /* -INFINITY, INFINITY: no bound */
    bool above_min, below_max; /* the bound itself is excluded */
};

/* The values of an enum, ended by a NULL name. */
struct KeyChoice {
    const char *name;
    int value;
};

struct ConfigKey {
    const char *section, *name;
    enum KeyType type;
    size_t offset; /* of the field in struct Config */
    int n_items;   /* of a list: exactly (KEY_INTS, KEY_REALS) or at most */
    struct KeyRange range;
    const struct KeyChoice *choices;
    const char *default_text; /* as it would stand in a file */
    const char *help;         /* one sentence */
};

struct ConfigSection {
    const char *name, *help;
};

extern const struct ConfigKey config_keys[]; /* ordered by section, as config_sections */
extern const int config_n_keys;
extern const struct ConfigSection config_sections[]; /* the first is "" */
extern const int config_n_sections;

/* Row of a key or section in its table; -1 when there is none of that name. */
int config_key_find(const char *section, const char *name);
int config_section_find(const char *name);

/* The row closest in spelling (Levenshtein distance), for "did you mean".  A key of the same name
 * in another section is as good as a key of the same section with one letter off. */
int config_key_nearest(const char *section, const char *name);
int config_section_nearest(const char *name);

enum { CONFIG_LABEL_BYTES = 64, CONFIG_EXPECTS_BYTES = 256 };

/* "section.key", or "key" at the top level. */
const char *config_key_label(char label[CONFIG_LABEL_BYTES], const struct ConfigKey *key);

/* What a value must be: "an integer, 1 to 1000", "one of gated, concat", "a list of 2 numbers,
 * ...". */
const char *config_key_expects(char text[CONFIG_EXPECTS_BYTES], const struct ConfigKey *key);

#endif
