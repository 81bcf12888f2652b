/* `tmd replay`: evaluate a case, write what it computed, and hold it against what it should be. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "kernels/backend_open.h"
#include "train/replay.h"

struct ReplayFlags {
    const char *out, *device, *precision;
    double tolerance;
    int64_t worst;
};

static const struct Arg replay_args[] = {
    {"out", ARG_TEXT, offsetof(struct ReplayFlags, out), "", 0, 0, NULL,
     "write every output and gradient to this safetensors file"},
    {"tol", ARG_REAL, offsetof(struct ReplayFlags, tolerance), "1e-4", 0, 1e9, NULL,
     "largest norm-relative error that passes"},
    {"device", ARG_CHOICE, offsetof(struct ReplayFlags, device), "cpu", 0, 0, "cpu|cuda",
     "what computes"},
    {"precision", ARG_CHOICE, offsetof(struct ReplayFlags, precision), "f32", 0, 0, "f32|bf16",
     "of activations, on cuda"},
    {"worst", ARG_INT, offsetof(struct ReplayFlags, worst), "5", 1, 1e6, NULL,
     "how many of the worst tensors to print"},
};

static const struct ArgTable replay_table = {
    .usage = "tmd replay DIR [flags]",
    .help = "Evaluates the step, model or sampler that the case in DIR describes.  With an\n"
            "expected.safetensors in DIR it prints the tensors that differ most and exits 1 beyond\n"
            "the tolerance.",
    .args = replay_args,
    .n_args = sizeof replay_args / sizeof *replay_args,
    .min_operands = 1,
    .max_operands = 1,
};

/* A NaN has no sign. */
struct NumberText {
    char s[24];
};
static struct NumberText number_text(double x, int n_digits) {
    struct NumberText text = {"nan"};
    if (!isnan(x)) snprintf(text.s, sizeof text.s, "%.*e", n_digits, x);
    return text;
}

static bool compare(const struct TensorList *list, const char *expected,
                    const struct ReplayFlags *flags, bool *within, struct Error *err) {
    struct TensorDifference *differences;
    int n;
    if (!tensor_list_compare(list, expected, &differences, &n, err)) return false;
    for (int i = 0; i < n && i < flags->worst; i++)
        printf("  %-8s  %-48s |expected| %s\n", number_text(differences[i].norm_relative, 2).s,
               differences[i].tensor->name, number_text(differences[i].expected_norm, 3).s);
    const struct TensorDifference *worst = &differences[0];
    *within = worst->norm_relative <= flags->tolerance; /* false for NaN */
    printf("%s: %d tensors, ", expected, n);
    if (isnan(worst->norm_relative))
        printf("'%s' is not finite as it %s: FAILED\n", worst->tensor->name,
               isfinite(worst->expected_norm) ? "was computed" : "is expected");
    else
        printf("worst %.2e, tolerance %.0e: %s\n", worst->norm_relative, flags->tolerance,
               *within ? "ok" : "FAILED");
    free(differences);
    return true;
}

/* Runs the case on the device that the flags name. */
static bool run(const struct ReplayFlags *flags, const char *folder, struct TensorList *list,
                struct Error *err) {
    struct BackendChoice choice = {
        .kind = strcmp(flags->device, "cuda") == 0 ? BACKEND_CUDA : BACKEND_CPU,
        .deterministic = true,
        .graphs = true};
    struct Backend *be;
    dtype_parse(flags->precision, &choice.precision);
    if (!backend_open(choice, 0, &be, err)) return false;
    bool ok = replay_run(folder, be, list, err);
    be->destroy(be);
    return ok;
}

int cmd_replay(int argc, char **argv) {
    struct ReplayFlags flags;
    struct Operands operands;
    struct TensorList list = {0};
    struct Error err;
    int exit_code;
    if (!args_begin(&replay_table, argc, argv, &flags, &operands, &exit_code)) return exit_code;

    bool within = true, ok = run(&flags, operands.items[0], &list, &err);
    if (ok && flags.out) ok = tensor_list_write(&list, flags.out, &err);
    char *expected = xprintf("%s/expected.safetensors", operands.items[0]);
    if (ok && access(expected, F_OK) == 0)
        ok = compare(&list, expected, &flags, &within, &err);
    else if (ok)
        printf("%s: %d tensors computed, none expected\n", operands.items[0], list.n);
    free(expected);
    tensor_list_free(&list);
    if (!ok) return error_report(&err);
    return within ? EXIT_OK : EXIT_FAILED;
}
