/* Cuts the text of a row apart, reads the configuration it names, and applies its options. */
#include "train/eval_row.h"

#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

/* The options of a row, one after another: key=value. */
struct Options {
    char **items;
    int n;
};

/* Cuts `text` at its commas, in place. */
static struct Options split_options(char *text) {
    struct Options options = {0};
    for (char *rest = text; rest;) {
        options.items = xrealloc(options.items, (size_t)(options.n + 1) * sizeof *options.items);
        options.items[options.n++] = strsep(&rest, ",");
    }
    return options;
}

/* The value if `option` is "<key>=value", else NULL. */
static const char *value_of(const char *option, const char *key) {
    size_t length = strlen(key);
    return strncmp(option, key, length) == 0 && option[length] == '=' ? option + length + 1 : NULL;
}

/* The last option of that key, else `fallback`. */
static const char *find_option(struct Options options, const char *key, const char *fallback) {
    for (int i = 0; i < options.n; i++) {
        const char *value = value_of(options.items[i], key);
        if (value) fallback = value;
    }
    return fallback;
}

static bool load_config(struct EvalRow *row, struct Options options, struct Error *err) {
    const char *file = find_option(options, "config", NULL);
    return file ? config_load(&row->config, file, err)
                : sampling_config_load(&row->config, row->path, err);
}

static bool choose_role(struct EvalRow *row, struct Options options, struct Error *err) {
    bool teaches = row->config.train.stage == STAGE_TEACHER;
    const char *role = find_option(options, "role", teaches ? "teacher" : "student");
    row->model.role = strcmp(role, "teacher") == 0 ? ROLE_TEACHER : ROLE_STUDENT;
    row->model.untrained = strcmp(role, "untrained") == 0;
    if (row->model.role == ROLE_TEACHER || row->model.untrained || strcmp(role, "student") == 0)
        return true;
    return error_set(err, "role: expected teacher, student or untrained, got '%s'", role);
}

static bool choose_weights(struct EvalRow *row, struct Options options, struct Error *err) {
    const char *ema = find_option(options, "ema", "yes");
    row->model.use_ema = strcmp(ema, "yes") == 0;
    return row->model.use_ema || strcmp(ema, "no") == 0 ||
           error_set(err, "ema: expected yes or no, got '%s'", ema);
}

/* What is left of the options is for the configuration. */
static bool override_config(struct EvalRow *row, const char *option, struct Error *err) {
    static const char *const own[] = {"role", "ema", "config"};
    static const char *const of_sampler[] = {"steps", "shift", "guidance"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (value_of(option, own[i])) return true;
    for (size_t i = 0; i < sizeof of_sampler / sizeof *of_sampler; i++) {
        if (!value_of(option, of_sampler[i])) continue;
        char *assignment = xprintf("sampler.%s", option);
        bool ok = config_override(&row->config, assignment, err);
        free(assignment);
        return ok;
    }
    return config_override(&row->config, option, err);
}

static bool apply_options(struct EvalRow *row, struct Options options, struct Error *err) {
    bool ok = load_config(row, options, err) && choose_role(row, options, err) &&
              choose_weights(row, options, err);
    for (int i = 0; ok && i < options.n; i++) ok = override_config(row, options.items[i], err);
    return ok && sampling_config_check(&row->config, row->model.role, err);
}

/* Name and path; *options is what follows the path, in fresh memory, or NULL. */
static bool split_spec(struct EvalRow *row, const char *spec, char **options, struct Error *err) {
    const char *equals = strchr(spec, '=');
    size_t length = equals ? (size_t)(equals - spec) : 0;
    *options = NULL;
    if (length == 0 || length > EVAL_MAX_NAME || !equals[1])
        return error_set(err, "expected NAME=PATH[:key=value,...] with a name of 1 to %d bytes",
                         EVAL_MAX_NAME);
    row->name = xprintf("%.*s", (int)length, spec);
    if (strchr(row->name, ',') || !utf8_valid(row->name))
        return error_set(err, "expected a name in UTF-8 without a comma");
    row->path = xstrdup(equals + 1);
    char *colon = strrchr(row->path, ':');
    if (colon && strchr(colon, '=')) { /* else it belongs to the path */
        *colon = '\0';
        *options = xstrdup(colon + 1);
    }
    return true;
}

bool eval_row_parse(struct EvalRow *row, const char *spec, struct Error *err) {
    char *text;
    *row = (struct EvalRow){0};
    config_init(&row->config);
    bool ok = split_spec(row, spec, &text, err);
    if (ok) {
        struct Options options = split_options(text);
        row->model.path = row->path;
        ok = apply_options(row, options, err);
        free(options.items);
    }
    free(text);
    return ok || error_prefix(err, "row '%.80s'", spec);
}

void eval_row_free(struct EvalRow *row) {
    config_free(&row->config);
    free(row->name);
    free(row->path);
    *row = (struct EvalRow){0};
}
