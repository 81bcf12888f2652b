/* The table of subcommands.  Each takes argc and argv from its own name on and returns the exit code. */
#ifndef TMD_COMMANDS_H
#define TMD_COMMANDS_H

struct Command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
};

extern const struct Command commands[];
extern const int n_commands;

#endif
