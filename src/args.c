/* Parsing by table: one walk over argv, which stores each value at its flag's offset and moves
 * operands to the front. */
#include "args.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct Arg *find_arg(const struct ArgTable *table, const char *name, size_t length) {
    for (int i = 0; i < table->n_args; i++) {
        const struct Arg *arg = &table->args[i];
        if (strlen(arg->name) == length && strncmp(arg->name, name, length) == 0) return arg;
    }
    return NULL;
}

static bool is_choice(const char *choices, const char *text) {
    size_t length = strlen(text);
    for (const char *choice = choices; choice; choice = strchr(choice, '|')) {
        if (*choice == '|') choice++;
        if (strcspn(choice, "|") == length && strncmp(choice, text, length) == 0) return true;
    }
    return false;
}

static bool parse_int(const struct Arg *arg, const char *text, int64_t *value, struct Error *err) {
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    bool whole = end != text && !*end && errno == 0 && !isspace((unsigned char)text[0]);
    if (!whole || (double)number < arg->min || (double)number > arg->max)
        return error_set(err, "--%s: expected an integer from %.0f to %.0f, got '%s'", arg->name,
                         arg->min, arg->max, text);
    *value = number;
    return true;
}

static bool parse_real(const struct Arg *arg, const char *text, double *value, struct Error *err) {
    char *end;
    double number = strtod(text, &end);
    bool whole = end != text && !*end && isfinite(number) && !isspace((unsigned char)text[0]);
    if (!whole || number < arg->min || number > arg->max)
        return error_set(err, "--%s: expected a number from %g to %g, got '%s'", arg->name,
                         arg->min, arg->max, text);
    *value = number;
    return true;
}

static bool store(const struct Arg *arg, const char *text, void *values, struct Error *err) {
    void *field = (char *)values + arg->offset;
    switch (arg->type) {
    case ARG_INT:
        return parse_int(arg, text, field, err);
    case ARG_REAL:
        return parse_real(arg, text, field, err);
    case ARG_TEXT:
        *(const char **)field = text;
        return true;
    case ARG_SWITCH:
        *(bool *)field = true;
        return true;
    case ARG_CHOICE:
        if (!is_choice(arg->choices, text))
            return error_set(err, "--%s: expected one of %s, got '%s'", arg->name, arg->choices,
                             text);
        *(const char **)field = text;
        return true;
    }
    return false;
}

static void store_fallback(const struct Arg *arg, void *values) {
    struct Error err;
    void *field = (char *)values + arg->offset;
    if (arg->type == ARG_SWITCH)
        *(bool *)field = false;
    else if (!arg->fallback || (arg->type == ARG_TEXT && !arg->fallback[0]))
        memset(field, 0, arg->type == ARG_INT ? sizeof(int64_t) : sizeof(char *));
    else
        TMD_CHECK(store(arg, arg->fallback, values, &err), "bad default of --%s", arg->name);
}

/* One flag at argv[*at]; moves *at to the last word that it took. */
static bool parse_flag(const struct ArgTable *table, int argc, char **argv, int *at, bool *given,
                       void *values, struct Error *err) {
    const char *name = argv[*at] + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct Arg *arg = find_arg(table, name, length);
    if (!arg)
        return error_set(err, "unknown flag '--%.*s' (usage: %s)", (int)length, name, table->usage);
    if (given[arg - table->args]) return error_set(err, "--%s is given twice", arg->name);
    given[arg - table->args] = true;
    if (arg->type == ARG_SWITCH) {
        if (equals) return error_set(err, "--%s takes no value", arg->name);
        return store(arg, "", values, err);
    }
    if (equals) return store(arg, equals + 1, values, err);
    if (*at + 1 == argc) return error_set(err, "--%s needs a value", arg->name);
    return store(arg, argv[++*at], values, err);
}

static bool check_complete(const struct ArgTable *table, const bool *given,
                           const struct Operands *operands, struct Error *err) {
    for (int i = 0; i < table->n_args; i++) {
        const struct Arg *arg = &table->args[i];
        if (!given[i] && !arg->fallback && arg->type != ARG_SWITCH)
            return error_set(err, "--%s is missing (usage: %s)", arg->name, table->usage);
    }
    if (operands->n < table->min_operands)
        return error_set(err, "too few arguments (usage: %s)", table->usage);
    if (table->max_operands >= 0 && operands->n > table->max_operands)
        return error_set(err, "unexpected argument '%s' (usage: %s)",
                         operands->items[table->max_operands], table->usage);
    return true;
}

enum ArgsResult args_parse(const struct ArgTable *table, int argc, char **argv, void *values,
                           struct Operands *operands, struct Error *err) {
    bool given[64] = {false}, flags_ended = false;
    TMD_CHECK(table->n_args <= 64, "%s: too many flags", table->usage);
    for (int i = 0; i < table->n_args; i++) store_fallback(&table->args[i], values);
    *operands = (struct Operands){argv + 1, 0};
    for (int at = 1; at < argc; at++) {
        if (!flags_ended && !strcmp(argv[at], "--")) {
            flags_ended = true;
        } else if (!flags_ended && (!strcmp(argv[at], "--help") || !strcmp(argv[at], "-h"))) {
            args_print_help(table, stdout);
            return ARGS_HELP;
        } else if (!flags_ended && !strncmp(argv[at], "--", 2)) {
            if (!parse_flag(table, argc, argv, &at, given, values, err)) return ARGS_WRONG;
        } else {
            operands->items[operands->n++] = argv[at]; /* never ahead of `at` */
        }
    }
    return check_complete(table, given, operands, err) ? ARGS_RUN : ARGS_WRONG;
}

bool args_begin(const struct ArgTable *table, int argc, char **argv, void *values,
                struct Operands *operands, int *exit_code) {
    struct Error err;
    switch (args_parse(table, argc, argv, values, operands, &err)) {
    case ARGS_RUN:
        return true;
    case ARGS_HELP:
        *exit_code = EXIT_OK;
        return false;
    case ARGS_WRONG:
        *exit_code = error_report(&err);
        return false;
    }
    return false;
}

static void print_value_help(const struct Arg *arg, char *text, size_t n_bytes) {
    static const char *const placeholders[] = {
        [ARG_INT] = " N",  [ARG_REAL] = " X",  [ARG_TEXT] = " TEXT",
        [ARG_SWITCH] = "", [ARG_CHOICE] = " ",
    };
    snprintf(text, n_bytes, "--%s%s%s", arg->name, placeholders[arg->type],
             arg->type == ARG_CHOICE ? arg->choices : "");
}

void args_print_help(const struct ArgTable *table, FILE *out) {
    fprintf(out, "usage: %s\n\n%s\n", table->usage, table->help);
    if (table->n_args > 0) fprintf(out, "\n");
    for (int i = 0; i < table->n_args; i++) {
        const struct Arg *arg = &table->args[i];
        char flag[128];
        print_value_help(arg, flag, sizeof flag);
        fprintf(out, "  %-24s %s", flag, arg->help);
        if (!arg->fallback && arg->type != ARG_SWITCH) fprintf(out, " (required)");
        if (arg->fallback && arg->fallback[0]) fprintf(out, " (default %s)", arg->fallback);
        fprintf(out, "\n");
    }
}
