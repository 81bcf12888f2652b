/* The program: finds the command and hands over. */
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "train/commands.h"

static void print_commands(FILE *out) {
    fprintf(out, "usage: tmd COMMAND [arguments]\n\n");
    for (int i = 0; i < n_commands; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\n`tmd help COMMAND` tells more.\n");
}

static const struct Command *find_command(const char *name) {
    for (int i = 0; i < n_commands; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

int main(int argc, char **argv) {
    char *help_arguments[] = {argc > 2 ? argv[2] : NULL, (char[]){"--help"}, NULL};
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || (strcmp(argv[1], "help") == 0 && argc == 2)) {
        print_commands(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USER : EXIT_OK;
    }
    bool help = strcmp(argv[1], "help") == 0;
    const char *name = help ? argv[2] : argv[1];
    const struct Command *command = find_command(name);
    if (!command) {
        fprintf(stderr, "tmd: '%s' is no command; `tmd help` lists them\n", name);
        return EXIT_USER;
    }
    return help ? command->run(2, help_arguments) : command->run(argc - 1, argv + 1);
}
