/* Each table is a const list of keys, as the configuration is: rows say what may stand where. */
#include "train/machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/config_doc.h"
#include "train/config_file.h"
#include "train/config_keys.h"

#define ROW(section_, key_, type_, values, field, ...)                                             \
    {                                                                                              \
        .section = section_, .name = key_, .type = type_, .offset = offsetof(values, field),       \
        .range = __VA_ARGS__                                                                       \
    }
#define POSITIVE                                                                                   \
    { 0, INFINITY, true, false }
#define FROM_ZERO                                                                                  \
    { 0, INFINITY, false, false }
#define SHARE                                                                                      \
    { 0, 1, true, false }
#define COUNT                                                                                      \
    { 1, 1e6, false, false }
#define NAME_LENGTH                                                                                \
    { 1, MACHINE_NAME_BYTES - 1, false, false }

#define OF_MACHINE(section, key, field, ...)                                                       \
    ROW(section, key, KEY_REAL, struct Machine, field, __VA_ARGS__)
#define OF_NETWORK(section, key, field, ...)                                                       \
    ROW(section, key, KEY_REAL, struct Network, field, __VA_ARGS__)

static const struct ConfigKey machine_keys[] = {
    ROW("", "name", KEY_STRING, struct Machine, name, NAME_LENGTH),
    OF_MACHINE("gpu", "flops", flops, POSITIVE),
    OF_MACHINE("gpu", "memory_bytes", memory_bytes, POSITIVE),
    OF_MACHINE("gpu", "memory_bandwidth", memory_bandwidth, POSITIVE),
    OF_MACHINE("gpu", "host_bandwidth", host_bandwidth, POSITIVE),
    OF_MACHINE("gpu", "reserved_bytes", reserved_bytes, FROM_ZERO),
    OF_MACHINE("gpu", "launch_seconds", launch_seconds, FROM_ZERO),
    OF_MACHINE("reached", "products", reached.products, SHARE),
    OF_MACHINE("reached", "attention_forward", reached.attention_forward, SHARE),
    OF_MACHINE("reached", "attention_backward", reached.attention_backward, SHARE),
    OF_MACHINE("reached", "convolutions", reached.convolutions, SHARE),
    OF_MACHINE("reached", "memory", reached.memory, SHARE),
    ROW("node", "gpus", KEY_INT, struct Machine, node_gpus, COUNT),
    OF_MACHINE("node", "link_bandwidth", link_bandwidth, POSITIVE),
};

static const struct ConfigKey network_keys[] = {
    ROW("", "name", KEY_STRING, struct Network, name, NAME_LENGTH),
    OF_NETWORK("inside", "bandwidth", inside.bandwidth, POSITIVE),
    OF_NETWORK("inside", "reached", inside.reached, SHARE),
    OF_NETWORK("across", "bandwidth", across.bandwidth, FROM_ZERO),
    OF_NETWORK("across", "reached", across.reached, SHARE),
    OF_NETWORK("message", "seconds", message_seconds, FROM_ZERO),
};

enum { MAX_KEYS = 32 };

struct Table {
    const struct ConfigKey *keys;
    int n_keys;
    void *values;
    int lines[MAX_KEYS]; /* where each key stands; 0: not yet seen */
};

static bool number_fits(const struct ConfigKey *key, const struct DocScalar *scalar,
                        double *number) {
    char *end;
    *number = strtod(scalar->text, &end);
    return !scalar->quoted && end != scalar->text && !*end && isfinite(*number) &&
           (key->type == KEY_REAL || *number == floor(*number)) && *number <= key->range.max &&
           (key->range.above_min ? *number > key->range.min : *number >= key->range.min);
}

static bool store(const struct Table *table, const struct ConfigKey *key,
                  const struct DocEntry *entry) {
    void *field = (char *)table->values + key->offset;
    const struct DocScalar *scalar = entry->items;
    double number;
    size_t n_bytes;
    if (entry->kind != DOC_SCALAR) return false;
    if (key->type == KEY_STRING) {
        n_bytes = strlen(scalar->text);
        if (n_bytes < 1 || n_bytes >= MACHINE_NAME_BYTES) return false;
        memcpy(field, scalar->text, n_bytes + 1);
        return true;
    }
    if (!number_fits(key, scalar, &number)) return false;
    if (key->type == KEY_INT)
        *(int64_t *)field = (int64_t)number;
    else
        *(double *)field = number;
    return true;
}

static int find_key(const struct Table *table, const struct DocEntry *entry) {
    for (int i = 0; i < table->n_keys; i++)
        if (!strcmp(table->keys[i].section, entry->section) &&
            !strcmp(table->keys[i].name, entry->key))
            return i;
    return -1;
}

static bool is_section(const struct Table *table, const char *name) {
    for (int i = 0; i < table->n_keys; i++)
        if (*name && !strcmp(table->keys[i].section, name)) return true;
    return false;
}

static bool apply_entry(struct Table *table, const struct DocEntry *entry, struct Error *err) {
    char label[CONFIG_LABEL_BYTES], expects[CONFIG_EXPECTS_BYTES], got[DOC_CLIP_BYTES];
    char section[DOC_CLIP_BYTES];
    if (entry->kind == DOC_SECTION && is_section(table, entry->key)) return true;
    int i = find_key(table, entry);
    if (i < 0)
        return error_set(err, "%s%s%s: expected a key of the table, got one that it does not have",
                         doc_clip(section, entry->section), *entry->section ? "." : "",
                         doc_clip(got, entry->key));
    const struct ConfigKey *key = &table->keys[i];
    config_key_label(label, key);
    if (table->lines[i])
        return error_set(err, "%s: expected once, got a second one (the first is in line %d)",
                         label, table->lines[i]);
    table->lines[i] = entry->line;
    if (store(table, key, entry)) return true;
    config_key_expects(expects, key);
    if (entry->kind != DOC_SCALAR)
        return error_set(err, "%s: expected %s, got %s", label, expects,
                         doc_kind_name(entry->kind));
    return error_set(err, "%s: expected %s, got '%s'", label, expects,
                     doc_clip(got, entry->items[0].text));
}

static bool apply(struct Table *table, const struct Doc *doc, const char *path, struct Error *err) {
    char label[CONFIG_LABEL_BYTES], expects[CONFIG_EXPECTS_BYTES];
    for (int i = 0; i < doc->n_entries; i++)
        if (!apply_entry(table, &doc->entries[i], err))
            return error_prefix(err, "%s:%d", path, doc->entries[i].line);
    for (int i = 0; i < table->n_keys; i++)
        if (!table->lines[i])
            return error_set(err, "%s: %s: expected %s, got nothing: the key is missing", path,
                             config_key_label(label, &table->keys[i]),
                             config_key_expects(expects, &table->keys[i]));
    return true;
}

static bool load(struct Table table, const char *path, struct Error *err) {
    struct ConfigFile file;
    struct Doc doc;
    int line = 1;
    TMD_CHECK(table.n_keys <= MAX_KEYS, "%d keys", table.n_keys);
    if (!config_file_read(&file, path, err)) return false;
    bool ok = doc_parse(&doc, file.text, file.n_bytes, &line, err);
    if (!ok) error_prefix(err, "%s:%d", path, line);
    ok = ok && apply(&table, &doc, path, err);
    doc_free(&doc);
    config_file_free(&file);
    return ok;
}

bool machine_load(struct Machine *machine, const char *path, struct Error *err) {
    return load((struct Table){.keys = machine_keys,
                               .n_keys = sizeof machine_keys / sizeof *machine_keys,
                               .values = machine},
                path, err);
}

bool network_load(struct Network *network, const char *path, struct Error *err) {
    return load((struct Table){.keys = network_keys,
                               .n_keys = sizeof network_keys / sizeof *network_keys,
                               .values = network},
                path, err);
}
