/* Parses the lists; a combination is a number whose digits, one for each key, choose the values. */
#include "train/plan_sweep_keys.h"

#include <stdlib.h>
#include <string.h>

/* ---- keys */

static bool same_key(const char *assignment, const char *other) {
    size_t n_bytes = strcspn(assignment, "=") + 1;
    return strncmp(assignment, other, n_bytes) == 0;
}

static bool begin_key(struct SweepKeys *keys, const char *assignment, struct Error *err) {
    int n_bytes = (int)strcspn(assignment, "=");
    for (int k = 0; k < keys->n_keys; k++)
        if (same_key(assignment, keys->keys[k].assignments[0]))
            return error_set(err, "--sweep: %.*s is given twice", n_bytes, assignment);
    if (keys->n_keys == SWEEP_MAX_KEYS)
        return error_set(err, "--sweep: expected at most %d keys, got %.*s besides", SWEEP_MAX_KEYS,
                         n_bytes, assignment);
    keys->n_keys++;
    return true;
}

/* An item of the list: the first value of a key, with its name, or a further value. */
static bool add_item(struct SweepKeys *keys, const char *item, struct Error *err) {
    const char *equals = strchr(item, '='), *value = equals ? equals + 1 : item;
    if (equals == item || (!equals && keys->n_keys == 0))
        return error_set(err, "--sweep: expected key=value,value,key=value,..., got '%s'", item);
    if (!*value || strpbrk(value, "=[]{} "))
        return error_set(err,
                         "--sweep: expected single values parted by commas, without blanks or "
                         "brackets, got '%s'",
                         item);
    if (equals && !begin_key(keys, item, err)) return false;
    struct SweepKey *key = &keys->keys[keys->n_keys - 1];
    const char *first = key->assignments[0];
    if (key->n_values == SWEEP_MAX_VALUES)
        return error_set(err, "--sweep: expected at most %d values of a key, got '%s' besides",
                         SWEEP_MAX_VALUES, item);
    key->assignments[key->n_values++] =
        equals ? xstrdup(item) : xprintf("%.*s=%s", (int)strcspn(first, "="), first, item);
    return true;
}

bool sweep_keys_parse(struct SweepKeys *keys, const char *text, struct Error *err) {
    *keys = (struct SweepKeys){.n_combinations = 1};
    while (text) {
        const char *comma = strchr(text, ',');
        char *item = comma ? xprintf("%.*s", (int)(comma - text), text) : xstrdup(text);
        bool added = add_item(keys, item, err);
        free(item);
        if (!added) return false;
        text = comma ? comma + 1 : NULL;
    }
    for (int k = 0; k < keys->n_keys; k++) {
        keys->n_combinations *= keys->keys[k].n_values;
        if (keys->n_combinations > SWEEP_MAX_COMBINATIONS)
            return error_set(err, "--sweep: expected at most %d combinations, got %d of %d keys",
                             SWEEP_MAX_COMBINATIONS, keys->n_combinations, k + 1);
    }
    return true;
}

void sweep_keys_free(struct SweepKeys *keys) {
    for (int k = 0; k < keys->n_keys; k++)
        for (int v = 0; v < keys->keys[k].n_values; v++) free(keys->keys[k].assignments[v]);
}

/* ---- combinations */

const char *sweep_assignment(const struct SweepKeys *keys, int i, int k) {
    for (int later = keys->n_keys - 1; later > k; later--) i /= keys->keys[later].n_values;
    return keys->keys[k].assignments[i % keys->keys[k].n_values];
}

char *sweep_combination_name(const struct SweepKeys *keys, int i) {
    char *name = xstrdup(keys->n_keys ? sweep_assignment(keys, i, 0) : "as configured");
    for (int k = 1; k < keys->n_keys; k++) {
        char *longer = xprintf("%s %s", name, sweep_assignment(keys, i, k));
        free(name);
        name = longer;
    }
    return name;
}

bool sweep_combination_apply(const struct SweepKeys *keys, int i, struct Config *config,
                             struct Error *err) {
    for (int k = 0; k < keys->n_keys; k++)
        if (!config_override(config, sweep_assignment(keys, i, k), err))
            return error_prefix(err, "--sweep");
    return true;
}

/* ---- counts */

bool sweep_counts_parse(struct SweepCounts *counts, const char *text, struct Error *err) {
    int64_t least = 1;
    const char *at = text;
    counts->n = 0;
    for (bool more = true; more; more = *at++ == ',') {
        char *end;
        long long n = strtoll(at, &end, 10);
        bool number = *at >= '0' && *at <= '9' && (*end == ',' || !*end);
        if (!number || n < least || n > SWEEP_MAX_GPUS || counts->n == SWEEP_MAX_COUNTS)
            return error_set(err,
                             "--gpus: expected a number from 1 to %d, or up to %d of them in "
                             "increasing order parted by commas, got '%s'",
                             SWEEP_MAX_GPUS, SWEEP_MAX_COUNTS, text);
        counts->gpus[counts->n++] = (int)n;
        least = n + 1;
        at = end;
    }
    return true;
}
