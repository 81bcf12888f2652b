/* A value is a scalar or a list of scalars of one type, so everything here works item by item:
 * parse all of them, and only when all are good store them. */
#include "config_value.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(enum Stage) == sizeof(unsigned), "enums are stored through unsigned");

union Item {
    int64_t integer;
    double real;
    bool truth;
    unsigned choice;
    const char *text; /* borrowed from the document */
};

static bool is_list(const struct ConfigKey *key) {
    return key->type == KEY_INTS || key->type == KEY_REALS || key->type == KEY_INT_LIST ||
           key->type == KEY_STRING_LIST;
}

static bool in_range(const struct KeyRange *range, double x) {
    return (range->above_min ? x > range->min : x >= range->min) &&
           (range->below_max ? x < range->max : x <= range->max);
}

/* [-+]?[0-9]+ */
static bool parse_int(const struct DocScalar *scalar, int64_t *out) {
    const char *digits = scalar->text + strspn(scalar->text, "+-");
    if (scalar->quoted || digits > scalar->text + 1 || !*digits) return false;
    if (digits[strspn(digits, "0123456789")]) return false;
    errno = 0;
    *out = strtoll(scalar->text, NULL, 10);
    return errno != ERANGE;
}

/* [-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?: no hexadecimal, infinity or NaN, all of
 * which strtod would take.  What overflows, or becomes 0 though it is not, is refused too. */
static bool parse_real(const struct DocScalar *scalar, double *out) {
    const char *at = scalar->text, *digits = "0123456789";
    at += *at == '-' || *at == '+';
    size_t n_before = strspn(at, digits), n_after = 0;
    at += n_before;
    if (*at == '.') {
        n_after = strspn(at + 1, digits);
        at += 1 + n_after;
    }
    if (scalar->quoted || n_before + n_after == 0) return false;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '-' || at[1] == '+');
        if (!*at) return false;
        at += strspn(at, digits);
    }
    if (*at) return false;
    errno = 0;
    *out = strtod(scalar->text, NULL);
    return isfinite(*out) && !(errno == ERANGE && *out == 0);
}

static bool parse_bool(const struct DocScalar *scalar, bool *out) {
    *out = !strcmp(scalar->text, "true");
    return !scalar->quoted && (*out || !strcmp(scalar->text, "false"));
}

static bool parse_choice(const struct DocScalar *scalar, const struct KeyChoice *choices,
                         unsigned *out) {
    for (const struct KeyChoice *choice = choices; choice->name; choice++) {
        *out = (unsigned)choice->value;
        if (!strcmp(choice->name, scalar->text)) return true;
    }
    return false;
}

/* A plain scalar that YAML reads as null. */
static bool is_null(const struct DocScalar *scalar) {
    return !scalar->quoted &&
           (!*scalar->text || !strcmp(scalar->text, "~") || !strcmp(scalar->text, "null") ||
            !strcmp(scalar->text, "Null") || !strcmp(scalar->text, "NULL"));
}

static bool parse_item(const struct ConfigKey *key, const struct DocScalar *scalar,
                       union Item *item) {
    switch (key->type) {
    case KEY_INT:
    case KEY_INTS:
    case KEY_INT_LIST:
        return parse_int(scalar, &item->integer) && in_range(&key->range, (double)item->integer);
    case KEY_REAL:
    case KEY_REALS:
        return parse_real(scalar, &item->real) && in_range(&key->range, item->real);
    case KEY_BOOL:
        return parse_bool(scalar, &item->truth);
    case KEY_ENUM:
        return parse_choice(scalar, key->choices, &item->choice);
    case KEY_STRING:
    case KEY_STRING_LIST:
        item->text = scalar->text;
        return !is_null(scalar) && in_range(&key->range, (double)strlen(scalar->text));
    case KEY_BASE:
        break;
    }
    return false;
}

static void replace_string(char **field, const char *text) {
    free(*field);
    *field = xstrdup(text);
}

/* Item i of the field.  A StringList's items must all be NULL or owned. */
static void store_item(const struct ConfigKey *key, void *field, int i, const union Item *item) {
    switch (key->type) {
    case KEY_INT:
    case KEY_INTS:
        ((int64_t *)field)[i] = item->integer;
        break;
    case KEY_REAL:
    case KEY_REALS:
        ((double *)field)[i] = item->real;
        break;
    case KEY_BOOL:
        *(bool *)field = item->truth;
        break;
    case KEY_ENUM:
        *(unsigned *)field = item->choice;
        break;
    case KEY_STRING:
        replace_string(field, item->text);
        break;
    case KEY_INT_LIST:
        ((struct IntList *)field)->items[i] = item->integer;
        break;
    case KEY_STRING_LIST:
        replace_string(&((struct StringList *)field)->items[i], item->text);
        break;
    case KEY_BASE:
        break;
    }
}

static void *field_of(const struct Config *config, const struct ConfigKey *key) {
    return (char *)config + key->offset;
}

enum { GOT_BYTES = DOC_CLIP_BYTES + 64 };

static void describe(char got[GOT_BYTES], const struct ConfigKey *key,
                     const struct DocScalar *scalar) {
    char text[DOC_CLIP_BYTES];
    if (is_null(scalar))
        snprintf(got, GOT_BYTES, "nothing%s",
                 key->type == KEY_STRING ? " (the empty string is \"\")" : "");
    else
        snprintf(got, GOT_BYTES, "%s'%s'", scalar->quoted ? "the string " : "",
                 doc_clip(text, scalar->text));
}

/* Whether the value fits its key as a whole and item by item; if not, `got` says what it is. */
static bool check_value(const struct ConfigKey *key, const struct DocEntry *value,
                        char got[GOT_BYTES]) {
    if (value->kind == DOC_SECTION) {
        snprintf(got, GOT_BYTES, "%s", doc_kind_name(value->kind));
        return false;
    }
    bool list = value->kind == DOC_LIST;
    bool fixed = key->type == KEY_INTS || key->type == KEY_REALS;
    if (list && (!is_list(key) || value->n_items > key->n_items ||
                 (fixed && value->n_items != key->n_items))) {
        snprintf(got, GOT_BYTES, "a list of %d", value->n_items);
        return false;
    }
    for (int i = 0; i < value->n_items; i++) {
        union Item item;
        if (list == is_list(key) && parse_item(key, &value->items[i], &item)) continue;
        describe(got, key, &value->items[i]);
        size_t used = strlen(got);
        if (list) snprintf(got + used, GOT_BYTES - used, " as item %d", i + 1);
        return false;
    }
    return true;
}

bool config_value_set(struct Config *config, const struct ConfigKey *key,
                      const struct DocEntry *value, struct Error *err) {
    char got[GOT_BYTES], label[CONFIG_LABEL_BYTES], expects[CONFIG_EXPECTS_BYTES];
    if (!check_value(key, value, got))
        return error_set(err, "%s: expected %s, got %s", config_key_label(label, key),
                         config_key_expects(expects, key), got);
    void *field = field_of(config, key);
    if (is_list(key)) config_value_free(config, key);
    for (int i = 0; i < value->n_items; i++) {
        union Item item;
        parse_item(key, &value->items[i], &item);
        store_item(key, field, i, &item);
    }
    if (key->type == KEY_INT_LIST) ((struct IntList *)field)->n = value->n_items;
    if (key->type == KEY_STRING_LIST) ((struct StringList *)field)->n = value->n_items;
    return true;
}

void config_value_free(struct Config *config, const struct ConfigKey *key) {
    void *field = field_of(config, key);
    if (key->type == KEY_STRING) {
        free(*(char **)field);
        *(char **)field = NULL;
    }
    if (key->type == KEY_STRING_LIST) {
        struct StringList *list = field;
        for (int i = 0; i < list->n; i++) free(list->items[i]);
        *list = (struct StringList){0};
    }
}

/* The fewest of 15, 16 or 17 digits from which the same double is read. */
static void print_real(double x, FILE *out) {
    char text[40];
    for (int n_digits = 15; n_digits <= 17; n_digits++) {
        snprintf(text, sizeof text, "%.*g", n_digits, x);
        if (strtod(text, NULL) == x) break;
    }
    fputs(text, out);
}

/* Reads one character of valid UTF-8 and moves on. */
static unsigned next_character(const unsigned char **at) {
    unsigned lead = *(*at)++;
    int n_more = lead < 0xC0 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    unsigned character = n_more ? lead & (0x3Fu >> n_more) : lead;
    for (; n_more && (**at & 0xC0) == 0x80; n_more--)
        character = character << 6 | (*(*at)++ & 0x3F);
    return character;
}

/* What YAML lets stand as itself between double quotes, less its line breaks and byte order mark.
 */
static bool is_printable(unsigned c) {
    if (c < 0x7F) return c >= 0x20;
    return c >= 0xA0 && c != 0x2028 && c != 0x2029 && c != 0xFEFF && !(c >= 0xFFFE && c <= 0xFFFF);
}

static void print_string(const char *text, FILE *out) {
    const unsigned char *at = (const unsigned char *)text;
    fputc('"', out);
    while (*at) {
        const unsigned char *start = at;
        unsigned character = next_character(&at);
        if (character == '"' || character == '\\')
            fprintf(out, "\\%c", (int)character);
        else if (is_printable(character))
            fwrite(start, 1, (size_t)(at - start), out);
        else
            fprintf(out, "\\u%04X", character);
    }
    fputc('"', out);
}

static void print_choice(const struct KeyChoice *choices, unsigned value, FILE *out) {
    const struct KeyChoice *choice = choices;
    while (choice->name && (unsigned)choice->value != value) choice++;
    TMD_CHECK(choice->name, "an enum holds %u, which has no name", value);
    fputs(choice->name, out);
}

static void print_item(const struct ConfigKey *key, const void *field, int i, FILE *out) {
    switch (key->type) {
    case KEY_INT:
    case KEY_INTS:
        fprintf(out, "%lld", (long long)((const int64_t *)field)[i]);
        break;
    case KEY_INT_LIST:
        fprintf(out, "%lld", (long long)((const struct IntList *)field)->items[i]);
        break;
    case KEY_REAL:
    case KEY_REALS:
        print_real(((const double *)field)[i], out);
        break;
    case KEY_BOOL:
        fputs(*(const bool *)field ? "true" : "false", out);
        break;
    case KEY_ENUM:
        print_choice(key->choices, *(const unsigned *)field, out);
        break;
    case KEY_STRING:
        print_string(*(char *const *)field, out);
        break;
    case KEY_STRING_LIST:
        print_string(((const struct StringList *)field)->items[i], out);
        break;
    case KEY_BASE:
        break;
    }
}

static int n_stored(const struct ConfigKey *key, const void *field) {
    if (key->type == KEY_INT_LIST) return ((const struct IntList *)field)->n;
    if (key->type == KEY_STRING_LIST) return ((const struct StringList *)field)->n;
    return is_list(key) ? key->n_items : 1;
}

void config_value_print(const struct Config *config, const struct ConfigKey *key, FILE *out) {
    const void *field = field_of(config, key);
    int n = n_stored(key, field);
    if (is_list(key)) fputc('[', out);
    for (int i = 0; i < n; i++) {
        if (i) fputs(", ", out);
        print_item(key, field, i, out);
    }
    if (is_list(key)) fputc(']', out);
}
