/* The command only strings together what config.h offers. */
#include "cmd_config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "config.h"

struct Flags {
    bool help_keys;
};

static const struct Arg args[] = {
    {.name = "help-keys",
     .type = ARG_SWITCH,
     .offset = offsetof(struct Flags, help_keys),
     .help = "print every key with its default and its meaning"},
};

static const struct ArgTable table = {
    .usage = "tmd config CONFIG [section.key=value ...]\n       tmd config --help-keys",
    .help = "Checks a configuration and prints it with all bases, defaults and overrides resolved.",
    .args = args,
    .n_args = sizeof args / sizeof *args,
    .max_operands = -1,
};

static bool resolve(struct Config *config, const struct Operands *operands, struct Error *err) {
    if (operands->n == 0)
        return error_set(err,
                         "config: expected the path of a configuration, got nothing; usage: %s",
                         table.usage);
    if (!config_load(config, operands->items[0], err)) return false;
    for (int i = 1; i < operands->n; i++)
        if (!config_override(config, operands->items[i], err)) return false;
    return config_check(config, err);
}

static bool print_resolved(const struct Operands *operands, struct Error *err) {
    struct Config config;
    config_init(&config);
    bool ok = resolve(&config, operands, err);
    if (ok) config_print(&config, stdout);
    config_free(&config);
    return ok;
}

int cmd_config(int argc, char **argv) {
    struct Flags flags;
    struct Operands operands;
    struct Error err = {0};
    int exit_code = EXIT_OK;
    if (!args_begin(&table, argc, argv, &flags, &operands, &exit_code)) return exit_code;
    if (flags.help_keys)
        config_print_keys(stdout);
    else if (!print_resolved(&operands, &err))
        return error_report(&err);
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_OK;
    error_set(&err, "cannot write to the standard output: %s", strerror(errno));
    return error_report(&err);
}
