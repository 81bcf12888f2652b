/* Finding rows of the key table by name, or by the nearest name, and saying what a row expects. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "config_keys.h"

int config_key_find(const char *section, const char *name) {
    for (int i = 0; i < config_n_keys; i++)
        if (!strcmp(config_keys[i].section, section) && !strcmp(config_keys[i].name, name))
            return i;
    return -1;
}

int config_section_find(const char *name) {
    for (int i = 0; i < config_n_sections; i++)
        if (!strcmp(config_sections[i].name, name)) return i;
    return -1;
}

static int min(int a, int b) {
    return a < b ? a : b;
}

/* Levenshtein distance: the fewest insertions, deletions and substitutions that turn a into b.  One
 * row of the usual table; row[j] is the distance from the part of a that was read to b[0..j).  Only
 * the first bytes of long texts count: no key is longer, and a hostile one must not cost time. */
static int edit_distance(const char *a, const char *b) {
    enum { MAX_BYTES = 64 };
    int n_a = (int)strnlen(a, MAX_BYTES), n_b = (int)strnlen(b, MAX_BYTES), row[MAX_BYTES + 1];
    for (int j = 0; j <= n_b; j++) row[j] = j;
    for (int i = 1; i <= n_a; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n_b; j++) {
            int substituted = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = min(substituted, min(row[j], row[j - 1]) + 1);
        }
    }
    return row[n_b];
}

int config_key_nearest(const char *section, const char *name) {
    int best = 0, best_distance = INT32_MAX;
    for (int i = 0; i < config_n_keys; i++) {
        const struct ConfigKey *key = &config_keys[i];
        int distance = edit_distance(key->name, name) + (strcmp(key->section, section) != 0);
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}

int config_section_nearest(const char *name) {
    int best = 1; /* the top level, row 0, is not a name to suggest */
    for (int i = 2; i < config_n_sections; i++)
        if (edit_distance(config_sections[i].name, name) <
            edit_distance(config_sections[best].name, name))
            best = i;
    return best;
}

const char *config_key_label(char label[CONFIG_LABEL_BYTES], const struct ConfigKey *key) {
    snprintf(label, CONFIG_LABEL_BYTES, "%s%s%s", key->section, *key->section ? "." : "",
             key->name);
    return label;
}

/* ", 1 to 1000", ", at least 0", ", above 0 and below 1"; nothing for a range without bounds. */
static const char *range_text(char *text, size_t n_bytes, const struct KeyRange *range) {
    const char *from = range->above_min ? "above" : "at least";
    const char *to = range->below_max ? "below" : "at most";
    bool has_min = isfinite(range->min), has_max = isfinite(range->max);
    if (has_min && has_max && !range->above_min && !range->below_max)
        snprintf(text, n_bytes, ", %.10g to %.10g", range->min, range->max);
    else if (has_min && has_max)
        snprintf(text, n_bytes, ", %s %.10g and %s %.10g", from, range->min, to, range->max);
    else if (has_min)
        snprintf(text, n_bytes, ", %s %.10g", from, range->min);
    else if (has_max)
        snprintf(text, n_bytes, ", %s %.10g", to, range->max);
    else
        *text = 0;
    return text;
}

static void choices_text(char text[CONFIG_EXPECTS_BYTES], const struct KeyChoice *choices) {
    size_t used = 0;
    for (const struct KeyChoice *choice = choices; choice->name; choice++) {
        const char *before = choice == choices ? "" : choice[1].name ? ", " : " or ";
        int n = snprintf(text + used, CONFIG_EXPECTS_BYTES - used, "%s%s", before, choice->name);
        used += (size_t)n;
        TMD_CHECK(used < CONFIG_EXPECTS_BYTES, "the names of an enum are too long to list");
    }
}

const char *config_key_expects(char text[CONFIG_EXPECTS_BYTES], const struct ConfigKey *key) {
    char range[80];
    range_text(range, sizeof range, &key->range);
    const char *non_empty = key->range.min > 0 ? "non-empty " : "";
    enum { N = CONFIG_EXPECTS_BYTES };
    switch (key->type) {
    case KEY_INT:
        snprintf(text, N, "an integer%s", range);
        break;
    case KEY_REAL:
        snprintf(text, N, "a number%s", range);
        break;
    case KEY_BOOL:
        snprintf(text, N, "true or false");
        break;
    case KEY_ENUM:
        choices_text(text, key->choices);
        break;
    case KEY_STRING:
        snprintf(text, N, "a %sstring", non_empty);
        break;
    case KEY_INTS:
        snprintf(text, N, "a list of %d integers%s", key->n_items, range);
        break;
    case KEY_REALS:
        snprintf(text, N, "a list of %d numbers%s", key->n_items, range);
        break;
    case KEY_INT_LIST:
        snprintf(text, N, "a list of at most %d integers%s", key->n_items, range);
        break;
    case KEY_STRING_LIST:
        snprintf(text, N, "a list of at most %d %sstrings", key->n_items, non_empty);
        break;
    case KEY_BASE:
        snprintf(text, N, "the path of a file");
        break;
    }
    return text;
}

const char *config_enum_name(const char *label, int value) {
    char buffer[CONFIG_LABEL_BYTES];
    for (int i = 0; i < config_n_keys; i++) {
        const struct ConfigKey *key = &config_keys[i];
        if (key->type != KEY_ENUM || strcmp(config_key_label(buffer, key), label) != 0) continue;
        for (const struct KeyChoice *choice = key->choices; choice->name; choice++)
            if (choice->value == value) return choice->name;
    }
    TMD_CHECK(false, "%s has no value %d", label, value);
    return NULL;
}
