/* Layers of a configuration: the defaults of the key table, files over their bases, overrides. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "config_doc.h"
#include "config_file.h"
#include "config_keys.h"
#include "config_value.h"

enum { MAX_BASES = 4 };

/* ---- one entry ---- */

static void set_origin(struct Config *config, int row, const char *source, int line) {
    struct ConfigOrigin *origin = &config->origins[row];
    free(origin->source);
    *origin = (struct ConfigOrigin){xstrdup(source), line};
}

static bool unknown_section(const char *name, struct Error *err) {
    char clipped[DOC_CLIP_BYTES];
    return error_set(err, "unknown section '%s'; the nearest known section is '%s'",
                     doc_clip(clipped, name), config_sections[config_section_nearest(name)].name);
}

/* `section` is known, or "".  At the top level, a dotted name is an override's spelling in a file,
 * and the name of a section is an override that forgot the key. */
static bool unknown_key(const char *section, const char *name, struct Error *err) {
    char clipped[DOC_CLIP_BYTES], nearest[CONFIG_LABEL_BYTES];
    if (!*section && strchr(name, '.'))
        return error_set(err,
                         "unknown key '%s'; in a file, keys stand inside their section, as in "
                         "'section:' and below it, indented, 'key: value'",
                         doc_clip(clipped, name));
    if (!*section && config_section_find(name) > 0)
        return error_set(err, "expected %s.key=value, got a value for the section '%s'", name,
                         name);
    config_key_label(nearest, &config_keys[config_key_nearest(section, name)]);
    return error_set(err, "unknown key '%s%s%s'; the nearest known key is '%s'", section,
                     *section ? "." : "", doc_clip(clipped, name), nearest);
}

/* The row of section.name in the table, or -1 with an error. */
static int find_key(const char *section, const char *name, struct Error *err) {
    if (config_section_find(section) < 0) {
        unknown_section(section, err);
        return -1;
    }
    int row = config_key_find(section, name);
    if (row < 0) unknown_key(section, name, err);
    return row;
}

/* ---- a file ---- */

/* Lines on which this file has already given a section or a key; 0: not yet. */
struct Seen {
    int *sections, *keys;
};

static bool check_first(int *seen, int line, const char *what, const char *name,
                        struct Error *err) {
    if (*seen)
        return error_set(err, "duplicate %s '%s', first given on line %d", what, name, *seen);
    *seen = line;
    return true;
}

/* A top-level entry that names a section: the keys inside it are entries of their own. */
static bool check_section(const struct DocEntry *entry, struct Seen *seen, struct Error *err) {
    int row = config_section_find(entry->key);
    if (row <= 0) return unknown_section(entry->key, err);
    bool empty = entry->kind == DOC_SCALAR && !*entry->items[0].text && !entry->items[0].quoted;
    if (entry->kind != DOC_SECTION && !empty)
        return error_set(err, "%s: expected a section with keys, got %s", entry->key,
                         doc_kind_name(entry->kind));
    return check_first(&seen->sections[row], entry->line, "section", entry->key, err);
}

static bool apply_entry(struct Config *config, const struct DocEntry *entry, const char *path,
                        struct Seen *seen, struct Error *err) {
    bool top_level = !*entry->section;
    if (top_level && (entry->kind == DOC_SECTION || config_section_find(entry->key) > 0) &&
        config_key_find("", entry->key) < 0)
        return check_section(entry, seen, err);
    int row = find_key(entry->section, entry->key, err);
    if (row < 0) return false;
    const struct ConfigKey *key = &config_keys[row];
    char label[CONFIG_LABEL_BYTES];
    if (!check_first(&seen->keys[row], entry->line, "key", config_key_label(label, key), err))
        return false;
    if (key->type == KEY_BASE) return true; /* load_base has seen to it */
    if (!config_value_set(config, key, entry, err)) return false;
    set_origin(config, row, path, entry->line);
    return true;
}

static bool apply_doc(struct Config *config, const struct Doc *doc, const char *path,
                      struct Error *err) {
    struct Seen seen = {xcalloc((unsigned)config_n_sections * sizeof(int)),
                        xcalloc((unsigned)config_n_keys * sizeof(int))};
    bool ok = true;
    for (int i = 0; ok && i < doc->n_entries; i++) {
        ok = apply_entry(config, &doc->entries[i], path, &seen, err);
        if (!ok) error_prefix(err, "%s:%d", path, doc->entries[i].line);
    }
    free(seen.sections);
    free(seen.keys);
    return ok;
}

/* ---- files over their bases ---- */

/* A file that is being loaded, and the one whose base it is. */
struct Layer {
    const char *path;
    const struct Layer *above; /* NULL: the file that the user named */
    int depth;
    struct ConfigFile file;
};

static bool load_layer(struct Config *config, const char *path, const struct Layer *above,
                       struct Error *err);

static bool check_chain(const struct Layer *layer, struct Error *err) {
    for (const struct Layer *a = layer->above; a; a = a->above)
        if (a->file.device == layer->file.device && a->file.inode == layer->file.inode)
            return error_set(err, "'%s' leads back to itself through its bases", layer->path);
    if (layer->depth > MAX_BASES)
        return error_set(err, "expected at most %d files beneath one another, got more", MAX_BASES);
    return true;
}

static bool load_base(struct Config *config, const struct Doc *doc, const struct Layer *layer,
                      struct Error *err) {
    for (int i = 0; i < doc->n_entries; i++) {
        const struct DocEntry *entry = &doc->entries[i];
        if (*entry->section || strcmp(entry->key, "base") != 0) continue;
        bool empty = entry->kind == DOC_SCALAR && !*entry->items[0].text;
        if (entry->kind != DOC_SCALAR || empty)
            return error_set(err, "%s:%d: base: expected the path of a file, got %s", layer->path,
                             entry->line, empty ? "nothing" : doc_kind_name(entry->kind));
        char *path = config_file_relative(layer->path, entry->items[0].text);
        bool ok = load_layer(config, path, layer, err);
        if (!ok) error_prefix(err, "%s:%d: base", layer->path, entry->line);
        free(path);
        return ok; /* a second `base` is a duplicate key: apply_doc says so */
    }
    return true;
}

static bool parse_and_apply(struct Config *config, const struct Layer *layer, struct Error *err) {
    struct Doc doc;
    int line = 1;
    bool ok = doc_parse(&doc, layer->file.text, layer->file.n_bytes, &line, err);
    if (!ok) error_prefix(err, "%s:%d", layer->path, line);
    ok = ok && load_base(config, &doc, layer, err) && apply_doc(config, &doc, layer->path, err);
    doc_free(&doc);
    return ok;
}

static bool load_layer(struct Config *config, const char *path, const struct Layer *above,
                       struct Error *err) {
    struct Layer layer = {.path = path, .above = above, .depth = above ? above->depth + 1 : 0};
    if (!config_file_read(&layer.file, path, err)) return false;
    bool ok = check_chain(&layer, err) && parse_and_apply(config, &layer, err);
    config_file_free(&layer.file);
    return ok;
}

bool config_load(struct Config *config, const char *path, struct Error *err) {
    return load_layer(config, path, NULL, err);
}

bool config_load_text(struct Config *config, const char *name, const char *text,
                      struct Error *err) {
    struct Doc doc;
    int line = 1;
    bool ok = doc_parse(&doc, text, strlen(text), &line, err);
    if (!ok) error_prefix(err, "%s:%d", name, line);
    ok = ok && apply_doc(config, &doc, name, err);
    doc_free(&doc);
    return ok;
}

/* ---- overrides ---- */

static bool apply_override(struct Config *config, const char *assignment, struct Error *err) {
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment)
        return error_set(err,
                         "expected section.key=value, or key=value for a key at the top level");
    const char *dot = memchr(assignment, '.', (size_t)(equals - assignment));
    char *section = dot ? strndup(assignment, (size_t)(dot - assignment)) : xstrdup("");
    const char *name_start = dot ? dot + 1 : assignment;
    char *name = strndup(name_start, (size_t)(equals - name_start));
    TMD_CHECK(section && name, "out of memory");
    struct Doc value = {0};
    int line, row = find_key(section, name, err);
    bool ok = row >= 0;
    if (ok && config_keys[row].type == KEY_BASE)
        ok = error_set(err, "base: expected in a file only, got an override");
    ok = ok && doc_parse_value(&value, equals + 1, &line, err) &&
         config_value_set(config, &config_keys[row], &value.entries[0], err);
    if (ok) set_origin(config, row, assignment, 0);
    doc_free(&value);
    free(section);
    free(name);
    return ok;
}

bool config_override(struct Config *config, const char *assignment, struct Error *err) {
    char clipped[DOC_CLIP_BYTES];
    return apply_override(config, assignment, err) ||
           error_prefix(err, "override '%s'", doc_clip(clipped, assignment));
}

/* ---- defaults and printing ---- */

void config_init(struct Config *config) {
    *config = (struct Config){0};
    config->origins = xcalloc((unsigned)config_n_keys * sizeof *config->origins);
    for (int i = 0; i < config_n_keys; i++) {
        const struct ConfigKey *key = &config_keys[i];
        if (key->type == KEY_BASE) continue;
        struct Error err = {0};
        struct Doc value;
        int line;
        bool ok = doc_parse_value(&value, key->default_text, &line, &err) &&
                  config_value_set(config, key, &value.entries[0], &err);
        TMD_CHECK(ok, "the default of a key is not one of its values: %s", err.text);
        doc_free(&value);
    }
}

void config_free(struct Config *config) {
    for (int i = 0; i < config_n_keys; i++) {
        config_value_free(config, &config_keys[i]);
        if (config->origins) free(config->origins[i].source);
    }
    free(config->origins);
    *config = (struct Config){0};
}

void config_print(const struct Config *config, FILE *out) {
    const char *section = "";
    for (int i = 0; i < config_n_keys; i++) {
        const struct ConfigKey *key = &config_keys[i];
        if (key->type == KEY_BASE) continue;
        if (strcmp(key->section, section) != 0) fprintf(out, "\n%s:\n", key->section);
        section = key->section;
        fprintf(out, "%s%s: ", *section ? "  " : "", key->name);
        config_value_print(config, key, out);
        fputc('\n', out);
    }
}

char *config_to_yaml(const struct Config *config) {
    char *text = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    TMD_CHECK(out, "out of memory");
    config_print(config, out);
    TMD_CHECK(fclose(out) == 0, "out of memory");
    return text;
}

struct BackendChoice config_device(const struct Config *config) {
    const struct DeviceConfig *device = &config->device;
    return (struct BackendChoice){.kind = device->backend,
                                  .precision = device->precision,
                                  .deterministic = device->deterministic,
                                  .tune_gemm = device->tune_gemm,
                                  .graphs = device->graphs};
}
