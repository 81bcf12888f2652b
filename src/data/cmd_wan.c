/* Flags in, wan_import and wan_export, a summary out. */
#include "data/cmd_wan.h"

#include <stdio.h>
#include <string.h>

#include "args.h"
#include "data/wan_export.h"
#include "data/wan_import.h"

/* ---- tmd import ---- */

struct ImportFlags {
    const char *out;
    int64_t zstd_level;
};

static const struct Arg import_args[] = {
    {.name = "out",
     .type = ARG_TEXT,
     .offset = offsetof(struct ImportFlags, out),
     .help = "the checkpoint to write"},
    {.name = "zstd-level",
     .type = ARG_INT,
     .offset = offsetof(struct ImportFlags, zstd_level),
     .fallback = "1",
     .min = 0,
     .max = 19,
     .help = "compression; 0 stores plain numbers"},
};

static const struct ArgTable import_table = {
    .usage = "tmd import WAN_FOLDER --out CKPT.h5 [flags]",
    .help =
        "Reads a Wan2.1 text-to-video model (a folder, an index or a single file of safetensors, "
        "in the\n"
        "original or the diffusers layout) and writes a checkpoint with the group teacher/param.",
    .args = import_args,
    .n_args = sizeof import_args / sizeof *import_args,
    .min_operands = 1,
    .max_operands = 1,
};

static void print_import(const char *out, const struct WanImportReport *report) {
    const struct ModelConfig *model = &report->model;
    printf("%s: %lld tensors, %lld parameters; width %lld, %lld blocks, %lld heads\n", out,
           (long long)report->n_tensors, (long long)report->n_params, (long long)model->dim,
           (long long)model->num_layers, (long long)model->num_heads);
    printf("read from the %s layout", wan_layout_name(report->naming.layout));
    if (report->naming.prefix[0])
        printf(", behind the prefix '%s' (%lld tensors without it were left out)",
               report->naming.prefix, (long long)report->naming.n_outside);
    printf("\n");
    if (report->sizes_inferred)
        printf("there was no config.json: sizes were read off the shapes; heads of width 128, %lld "
               "text "
               "tokens and eps %g were assumed\n",
               (long long)model->text_len, model->eps);
}

int cmd_import(int argc, char **argv) {
    struct ImportFlags flags;
    struct Operands operands;
    struct WanImportReport report;
    struct Error err;
    int exit_code;
    if (!args_begin(&import_table, argc, argv, &flags, &operands, &exit_code)) return exit_code;
    if (!wan_import(operands.items[0], flags.out, (int)flags.zstd_level, &report, &err))
        return error_report(&err);
    print_import(flags.out, &report);
    return EXIT_OK;
}

/* ---- tmd export ---- */

struct ExportFlags {
    const char *role, *out, *dtype, *layout;
    bool ema;
    int64_t max_shard_bytes;
};

static const struct Arg export_args[] = {
    {.name = "role",
     .type = ARG_CHOICE,
     .offset = offsetof(struct ExportFlags, role),
     .choices = "student|teacher",
     .help = "which model of the checkpoint"},
    {.name = "ema",
     .type = ARG_SWITCH,
     .offset = offsetof(struct ExportFlags, ema),
     .help = "take its averaged weights"},
    {.name = "out",
     .type = ARG_TEXT,
     .offset = offsetof(struct ExportFlags, out),
     .help = "the folder to write; it must not exist, or be empty"},
    {.name = "dtype",
     .type = ARG_CHOICE,
     .offset = offsetof(struct ExportFlags, dtype),
     .fallback = "bf16",
     .choices = "bf16|f16|f32",
     .help = "type of the numbers"},
    {.name = "layout",
     .type = ARG_CHOICE,
     .offset = offsetof(struct ExportFlags, layout),
     .fallback = "original",
     .choices = "original|diffusers",
     .help = "names of the tensors, and form of config.json"},
    {.name = "max-shard-bytes",
     .type = ARG_INT,
     .offset = offsetof(struct ExportFlags, max_shard_bytes),
     .fallback = "10000000000",
     .min = 1,
     .max = 1e15,
     .help = "weights beyond this length are spread over several files"},
};

static const struct ArgTable export_table = {
    .usage = "tmd export CKPT.h5 --role student|teacher --out FOLDER [flags]",
    .help = "Writes a model of a checkpoint as a Wan folder of safetensors with its config.json; a "
            "student's\n"
            "own tensors and its sampling recipe go into " WAN_FLOW_HEAD_FILE " beside it.",
    .args = export_args,
    .n_args = sizeof export_args / sizeof *export_args,
    .min_operands = 1,
    .max_operands = 1,
};

int cmd_export(int argc, char **argv) {
    struct ExportFlags flags;
    struct Operands operands;
    struct WanExportReport report;
    struct Error err;
    int exit_code;
    if (!args_begin(&export_table, argc, argv, &flags, &operands, &exit_code)) return exit_code;
    struct WanExportOptions options = {
        .role = flags.role,
        .ema = flags.ema,
        .layout = strcmp(flags.layout, "diffusers") == 0 ? WAN_DIFFUSERS : WAN_ORIGINAL,
        .max_shard_bytes = flags.max_shard_bytes,
    };
    TMD_CHECK(dtype_parse(flags.dtype, &options.dtype), "'%s' is no element type", flags.dtype);
    if (!wan_export(operands.items[0], flags.out, &options, &report, &err))
        return error_report(&err);
    printf("%s: %lld tensors of the Wan model, %lld of the student's own, %lld parameters as %s\n",
           flags.out, (long long)report.n_shared, (long long)report.n_own,
           (long long)report.n_params, flags.dtype);
    return EXIT_OK;
}
