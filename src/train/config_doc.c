/* Drives libyaml's event parser.  Events rather than its document tree, because only events still
 * tell an alias from what it stands for, and carry the line of everything. */
#include "config_doc.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct Reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one */
    const char *text;   /* what is parsed, for counting lines */
    struct Doc *doc;
    struct Error *err;
};

static int event_line(const struct Reader *reader) {
    return (int)reader->event.start_mark.line + 1;
}

static int newlines_before(const char *text, size_t n_bytes) {
    int n = 0;
    for (size_t i = 0; i < n_bytes; i++) n += text[i] == '\n';
    return n;
}

/* What libyaml itself complains of.  Only a malformed character comes without a mark. */
static bool syntax_error(struct Reader *reader, int *line) {
    const yaml_parser_t *parser = &reader->parser;
    TMD_CHECK(parser->error != YAML_MEMORY_ERROR, "out of memory");
    if (parser->error == YAML_READER_ERROR)
        *line = newlines_before(reader->text, parser->problem_offset) + 1;
    else
        *line = (int)parser->problem_mark.line + 1;
    const char *context = parser->context ? parser->context : "";
    return error_set(reader->err, "not valid YAML: %s%s%s", parser->problem, *context ? " " : "",
                     context);
}

/* Refuses what makes a value more than what is written at its place. */
static bool check_plain(struct Reader *reader) {
    const yaml_event_t *event = &reader->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return error_set(reader->err, "expected a value, got the alias *%.40s (not supported here)",
                         (const char *)event->data.alias.anchor);
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        if (strlen((const char *)event->data.scalar.value) != event->data.scalar.length)
            return error_set(reader->err, "expected a text, got one that contains a NUL character");
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor)
        return error_set(reader->err,
                         "expected a value, got the anchor &%.40s (not supported here)",
                         (const char *)anchor);
    if (tag)
        return error_set(reader->err, "expected a value, got the tag %.60s (not supported here)",
                         (const char *)tag);
    return true;
}

static bool next_event(struct Reader *reader, int *line) {
    yaml_event_delete(&reader->event);
    if (!yaml_parser_parse(&reader->parser, &reader->event)) return syntax_error(reader, line);
    *line = event_line(reader);
    return check_plain(reader);
}

static struct DocEntry *add_entry(struct Doc *doc, const char *section, const char *key, int line) {
    int n = doc->n_entries++;
    if ((n & (n - 1)) == 0) /* full at every power of two */
        doc->entries = xrealloc(doc->entries, (n ? 2ul * (unsigned)n : 1) * sizeof *doc->entries);
    struct DocEntry *entry = &doc->entries[n];
    *entry = (struct DocEntry){.section = xstrdup(section), .key = xstrdup(key), .line = line};
    return entry;
}

/* Takes the current event, a scalar, as the next item of `entry`. */
static void add_item(struct DocEntry *entry, const yaml_event_t *event) {
    int n = entry->n_items++;
    if ((n & (n - 1)) == 0)
        entry->items = xrealloc(entry->items, (n ? 2ul * (unsigned)n : 1) * sizeof *entry->items);
    entry->items[n] =
        (struct DocScalar){.text = xstrdup((const char *)event->data.scalar.value),
                           .quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE};
}

/* "section.key: " before a message about its value; nothing when the value stands alone. */
static bool value_error(struct Reader *reader, const struct DocEntry *entry, const char *problem) {
    char section[DOC_CLIP_BYTES], key[DOC_CLIP_BYTES];
    error_set(reader->err, "%s", problem);
    if (*entry->key)
        error_prefix(reader->err, "%s%s%s", doc_clip(section, entry->section),
                     *entry->section ? "." : "", doc_clip(key, entry->key));
    return false;
}

/* The current event begins a value. */
static bool read_value(struct Reader *reader, struct DocEntry *entry, int *line) {
    if (reader->event.type == YAML_SCALAR_EVENT) {
        entry->kind = DOC_SCALAR;
        add_item(entry, &reader->event);
        return true;
    }
    if (reader->event.type == YAML_MAPPING_START_EVENT)
        return value_error(reader, entry,
                           "expected a value or a list, got a mapping (nested too deep)");
    entry->kind = DOC_LIST;
    for (;;) {
        if (!next_event(reader, line)) return false;
        if (reader->event.type == YAML_SEQUENCE_END_EVENT) return true;
        if (reader->event.type != YAML_SCALAR_EVENT)
            return value_error(reader, entry,
                               "expected a list of plain values, got a list or a mapping inside it "
                               "(nested too deep)");
        add_item(entry, &reader->event);
    }
}

/* The current event begins a mapping: the whole document, or a section. */
static bool read_mapping(struct Reader *reader, const char *section, int *line) {
    for (;;) {
        if (!next_event(reader, line)) return false;
        if (reader->event.type == YAML_MAPPING_END_EVENT) return true;
        if (reader->event.type != YAML_SCALAR_EVENT)
            return error_set(reader->err, "expected a key, got a list or a mapping in its place");
        const char *key = (const char *)reader->event.data.scalar.value;
        struct DocEntry *entry = add_entry(reader->doc, section, key, event_line(reader));
        if (!next_event(reader, line)) return false;
        if (reader->event.type == YAML_MAPPING_START_EVENT && !*section) {
            entry->kind = DOC_SECTION;
            /* The entries may move while those of the section are added; the text of a key stays.
             */
            if (!read_mapping(reader, entry->key, line)) return false;
        } else if (!read_value(reader, entry, line)) {
            return false;
        }
    }
}

/* The current event begins the root of the document. */
static bool read_root(struct Reader *reader, bool value_alone, int *line) {
    const yaml_event_t *event = &reader->event;
    if (value_alone)
        return read_value(reader, add_entry(reader->doc, "", "", event_line(reader)), line);
    if (event->type == YAML_MAPPING_START_EVENT) return read_mapping(reader, "", line);
    if (event->type == YAML_SCALAR_EVENT && event->data.scalar.length == 0) return true;
    return error_set(reader->err, "expected sections and keys at the top level, got a %s",
                     event->type == YAML_SCALAR_EVENT ? "single value" : "list");
}

static bool read_stream(struct Reader *reader, bool value_alone, int *line) {
    if (!next_event(reader, line)) return false; /* the start of the stream */
    if (!next_event(reader, line)) return false;
    if (reader->event.type == YAML_STREAM_END_EVENT) return true;
    if (!next_event(reader, line) || !read_root(reader, value_alone, line)) return false;
    if (!next_event(reader, line)) return false; /* the end of the document */
    if (!next_event(reader, line)) return false;
    if (reader->event.type == YAML_STREAM_END_EVENT) return true;
    return error_set(reader->err, "expected the end of the file, got a second document");
}

static bool parse(struct Doc *doc, const char *text, size_t n_bytes, bool value_alone, int *line,
                  struct Error *err) {
    struct Reader reader = {.text = text, .doc = doc, .err = err};
    *doc = (struct Doc){0};
    TMD_CHECK(yaml_parser_initialize(&reader.parser), "out of memory");
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, n_bytes);
    bool ok = read_stream(&reader, value_alone, line);
    yaml_event_delete(&reader.event);
    yaml_parser_delete(&reader.parser);
    return ok;
}

bool doc_parse(struct Doc *doc, const char *text, size_t n_bytes, int *line, struct Error *err) {
    return parse(doc, text, n_bytes, false, line, err);
}

bool doc_parse_value(struct Doc *doc, const char *text, int *line, struct Error *err) {
    if (!parse(doc, text, strlen(text), true, line, err)) return false;
    if (doc->n_entries == 0) { /* nothing, or a comment alone: the empty string */
        struct DocEntry *entry = add_entry(doc, "", "", 1);
        entry->items = xcalloc(sizeof *entry->items);
        entry->items[0] = (struct DocScalar){.text = xstrdup(""), .quoted = true};
        entry->n_items = 1;
    }
    return true;
}

void doc_free(struct Doc *doc) {
    for (int i = 0; i < doc->n_entries; i++) {
        struct DocEntry *entry = &doc->entries[i];
        for (int j = 0; j < entry->n_items; j++) free(entry->items[j].text);
        free(entry->items);
        free(entry->section);
        free(entry->key);
    }
    free(doc->entries);
    *doc = (struct Doc){0};
}

const char *doc_kind_name(enum DocKind kind) {
    return kind == DOC_SCALAR ? "a value" : kind == DOC_LIST ? "a list" : "a section";
}

const char *doc_clip(char out[DOC_CLIP_BYTES], const char *text) {
    size_t n_bytes = strnlen(text, DOC_CLIP_BYTES);
    bool cut = n_bytes >= DOC_CLIP_BYTES;
    if (cut) {
        n_bytes = DOC_CLIP_BYTES - sizeof "...";
        while (n_bytes && ((unsigned char)text[n_bytes] & 0xC0) == 0x80) n_bytes--; /* mid-letter */
    }
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char byte = (unsigned char)text[i];
        out[i] = byte < 0x20 || byte == 0x7F ? '?' : text[i];
    }
    strcpy(out + n_bytes, cut ? "..." : "");
    return out;
}
