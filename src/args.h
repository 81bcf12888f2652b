/* Flags of a subcommand: one const table drives parsing, checking and --help.
 *
 * A flag is "--name VALUE" or "--name=VALUE"; a switch is "--name" alone.  Values land in fields of
 * a struct of the command's own, at the offsets that the table gives.  What is no flag is an
 * operand, in its order; "--" makes operands of all that follows. */
#ifndef TMD_ARGS_H
#define TMD_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"

enum ArgType {
    ARG_INT,    /* int64_t */
    ARG_REAL,   /* double */
    ARG_TEXT,   /* const char *, pointing into argv or at the default */
    ARG_SWITCH, /* bool, false unless given */
    ARG_CHOICE, /* const char *, one of `choices` */
};

struct Arg {
    const char *name; /* without the dashes */
    enum ArgType type;
    size_t offset;
    const char *fallback; /* the default as one would type it; NULL: the flag must be given;
                             "": a text that may be left out and is NULL then */
    double min, max;      /* ARG_INT, ARG_REAL: inclusive */
    const char *choices;  /* ARG_CHOICE: "one|two|three" */
    const char *help;
};

/* Rows of a table for fields of `values` (a struct type). */
#define ARG_INT_ROW(values, flag, field, standard, least, most, text)                              \
    {                                                                                              \
        .name = flag, .type = ARG_INT, .offset = offsetof(values, field), .fallback = standard,    \
        .min = least, .max = most, .help = text                                                    \
    }
#define ARG_TEXT_ROW(values, flag, field, standard, text)                                          \
    {                                                                                              \
        .name = flag, .type = ARG_TEXT, .offset = offsetof(values, field), .fallback = standard,   \
        .help = text                                                                               \
    }

struct ArgTable {
    const char *usage; /* "tmd data video [flags] VIDEO..." */
    const char *help;  /* what the command does, for --help */
    const struct Arg *args;
    int n_args;
    int min_operands, max_operands; /* max_operands < 0: any number */
};

struct Operands {
    char **items; /* the front part of argv, rearranged */
    int n;
};

enum ArgsResult { ARGS_RUN, ARGS_HELP, ARGS_WRONG };

/* Reads argv[1..] into `values`.  ARGS_HELP: --help was asked for and is printed on stdout;
 * ARGS_WRONG: `err` is filled.  argv is reordered, never written into. */
enum ArgsResult args_parse(const struct ArgTable *table, int argc, char **argv, void *values,
                           struct Operands *operands, struct Error *err);

/* The same as `args_parse` for a command's main function: prints the error or the help.  True: go
 * on; false: return *exit_code. */
bool args_begin(const struct ArgTable *table, int argc, char **argv, void *values,
                struct Operands *operands, int *exit_code);

void args_print_help(const struct ArgTable *table, FILE *out);

#endif
