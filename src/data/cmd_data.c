/* `tmd data` only dispatches: each of its commands has a file of its own. */
#include "data/cmd_data.h"

#include <stdio.h>
#include <string.h>

#include "data/cmd_data_check.h"
#include "data/cmd_data_shapes.h"
#include "data/cmd_data_video.h"
#include "error.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"shapes", cmd_data_shapes, "draw a captioned toy dataset"},
    {"video", cmd_data_video, "cut clips out of video files"},
    {"info", cmd_data_info, "print what datasets hold"},
    {"verify", cmd_data_verify, "read datasets from end to end and compare checksums"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *out) {
    fprintf(out, "usage: tmd data COMMAND [flags]\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\ntmd data COMMAND --help prints the flags of a command.\n");
}

int cmd_data(int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USER;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_usage(stdout);
        return EXIT_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    struct Error err;
    error_set(&err, "'tmd data' has no command '%s' (shapes, video, info, verify)", argv[1]);
    return error_report(&err);
}
