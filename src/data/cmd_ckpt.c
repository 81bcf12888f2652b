/* The commands only print what checkpoint.h finds. */
#include "data/cmd_ckpt.h"

#include <stdio.h>
#include <string.h>

#include "args.h"
#include "data/checkpoint.h"
#include "data/shape_text.h"

/* ---- tmd ckpt info ---- */

struct InfoFlags {
    bool tensors;
};

static const struct Arg info_args[] = {
    {.name = "tensors",
     .type = ARG_SWITCH,
     .offset = offsetof(struct InfoFlags, tensors),
     .help = "list every tensor with its shape and checksum"},
};

static const struct ArgTable info_table = {
    .usage = "tmd ckpt info PATH [--tensors]",
    .help = "Prints what a checkpoint holds: its values, and its tensors by group.",
    .args = info_args,
    .n_args = 1,
    .min_operands = 1,
    .max_operands = 1,
};

static void print_values(const struct Ckpt *ckpt) {
    for (int64_t i = 0; i < ckpt_value_count(ckpt); i++) {
        const struct CkptValue *value = ckpt_value(ckpt, i);
        switch (value->kind) {
        case CKPT_INT:
            printf("  %-28s %lld\n", value->key, (long long)value->integer);
            break;
        case CKPT_REAL:
            printf("  %-28s %.15g\n", value->key, value->real);
            break;
        case CKPT_TEXT:
            if (strchr(value->text, '\n'))
                printf("  %-28s (%zu bytes of text)\n", value->key, strlen(value->text));
            else
                printf("  %-28s %s\n", value->key, value->text);
            break;
        }
    }
}

static void print_tensor(const struct CkptTensorInfo *tensor) {
    printf("    %-44s %-24s %08x\n", tensor->name, shape_text(tensor->n_dims, tensor->shape).s,
           tensor->crc32);
}

/* One line per group: how many tensors, how many numbers, how many megabytes of them. */
static void print_groups(const struct Ckpt *ckpt, bool with_tensors) {
    for (int64_t i = 0, n; i < ckpt_count(ckpt); i += n) {
        const char *group = ckpt_info(ckpt, i)->group;
        int64_t first, n_elems = 0;
        n = ckpt_group(ckpt, group, &first);
        for (int64_t t = first; t < first + n; t++) n_elems += ckpt_info(ckpt, t)->n_elems;
        printf("  %-28s %6lld tensors %14lld numbers %10.1f MB\n", group, (long long)n,
               (long long)n_elems, (double)n_elems * sizeof(float) / 1e6);
        for (int64_t t = first; with_tensors && t < first + n; t++)
            print_tensor(ckpt_info(ckpt, t));
    }
}

static int run_info(int argc, char **argv) {
    struct InfoFlags flags;
    struct Operands operands;
    struct Ckpt *ckpt;
    struct Error err;
    int exit_code;
    if (!args_begin(&info_table, argc, argv, &flags, &operands, &exit_code)) return exit_code;
    if (!ckpt_open(operands.items[0], &ckpt, &err)) return error_report(&err);
    printf("%s: stage %s, iteration %lld\n", ckpt_path(ckpt), ckpt_stage(ckpt),
           (long long)ckpt_iteration(ckpt));
    if (ckpt_shard_count(ckpt) > 0) printf("  %-28s %d\n", "shards", ckpt_shard_count(ckpt));
    print_values(ckpt);
    print_groups(ckpt, flags.tensors);
    ckpt_close(ckpt);
    return EXIT_OK;
}

/* ---- tmd ckpt verify ---- */

static const struct ArgTable verify_table = {
    .usage = "tmd ckpt verify PATH...",
    .help = "Reads checkpoints completely and compares every checksum.",
    .min_operands = 1,
    .max_operands = -1,
};

static bool verify(const char *path, struct Error *err) {
    struct Ckpt *ckpt;
    if (!ckpt_open(path, &ckpt, err)) return false;
    bool intact = ckpt_verify(ckpt, err);
    if (intact) printf("%s: intact, %lld tensors\n", path, (long long)ckpt_count(ckpt));
    ckpt_close(ckpt);
    return intact;
}

static int run_verify(int argc, char **argv) {
    struct Operands operands;
    int exit_code;
    if (!args_begin(&verify_table, argc, argv, NULL, &operands, &exit_code)) return exit_code;
    exit_code = EXIT_OK;
    for (int i = 0; i < operands.n; i++) {
        struct Error err;
        if (!verify(operands.items[i], &err)) exit_code = error_report(&err);
    }
    return exit_code;
}

/* ---- dispatch ---- */

int cmd_ckpt(int argc, char **argv) {
    const char *action = argc > 1 ? argv[1] : "";
    if (strcmp(action, "info") == 0) return run_info(argc - 1, argv + 1);
    if (strcmp(action, "verify") == 0) return run_verify(argc - 1, argv + 1);
    if (strcmp(action, "--help") == 0 || strcmp(action, "-h") == 0) {
        args_print_help(&info_table, stdout);
        args_print_help(&verify_table, stdout);
        return EXIT_OK;
    }
    struct Error err;
    error_set(&err, "ckpt: expected 'info' or 'verify', got '%s' (usage: %s, or %s)", action,
              info_table.usage, verify_table.usage);
    return error_report(&err);
}
