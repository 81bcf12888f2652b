/* The command: reads its flags and lets the parts measure. */
#include <string.h>

#include "args.h"
#include "train/bench.h"

struct BenchFlags {
    const char *what, *json, *of, *device, *precision;
    double seconds;
    int64_t frames, height, width;
};

#define BENCH_FLAG(flag, kind, fallback_, min_, max_, help_)                                       \
    {                                                                                              \
        .name = #flag, .type = kind, .offset = offsetof(struct BenchFlags, flag),                  \
        .fallback = fallback_, .min = min_, .max = max_, .help = help_                             \
    }

static const struct Arg bench_args[] = {
    {.name = "what",
     .type = ARG_CHOICE,
     .offset = offsetof(struct BenchFlags, what),
     .fallback = "all",
     .choices = "all|machine|gemm|block|step",
     .help = "one part only; the machine's peak is measured in any case"},
    {.name = "of",
     .type = ARG_CHOICE,
     .offset = offsetof(struct BenchFlags, of),
     .fallback = "median",
     .choices = "median|best",
     .help = "which of the repeated runs counts; best: where other work runs beside"},
    {.name = "device",
     .type = ARG_CHOICE,
     .offset = offsetof(struct BenchFlags, device),
     .fallback = "cpu",
     .choices = "cpu|cuda",
     .help = "what is measured; with CONFIG its device.backend counts instead"},
    {.name = "precision",
     .type = ARG_CHOICE,
     .offset = offsetof(struct BenchFlags, precision),
     .fallback = "bf16",
     .choices = "bf16|f32",
     .help = "of activations on cuda; with CONFIG its device.precision counts instead"},
    BENCH_FLAG(json, ARG_TEXT, "", 0, 0, "write the numbers to this file too"),
    BENCH_FLAG(seconds, ARG_REAL, "0.3", 0.001, 3600, "how long to repeat each measurement"),
    BENCH_FLAG(frames, ARG_INT, "4", 1, 1e5, "latent frames of a sample of CONFIG's step"),
    BENCH_FLAG(height, ARG_INT, "16", 1, 1e5, "latent rows"),
    BENCH_FLAG(width, ARG_INT, "16", 1, 1e5, "latent columns"),
};

static const struct ArgTable bench_table = {
    .usage = "tmd bench [CONFIG] [section.key=value ...] [flags]",
    .help = "Measures this machine's multiply-add peak and copy bandwidth, and what share of them\n"
            "matrix products and a block reach; with CONFIG also its model's own layers, and the\n"
            "steps of its stage by phase and operation, on random data of train.micro_batch\n"
            "samples.  OMP_NUM_THREADS chooses the threads.",
    .args = bench_args,
    .n_args = sizeof bench_args / sizeof *bench_args,
    .max_operands = -1,
};

/* What a block is measured at besides CONFIG's: 512 tokens of width 512. */
static const struct ModelConfig middle_model = {.dim = 512,
                                                .ffn_dim = 2048,
                                                .num_heads = 8,
                                                .num_layers = 1,
                                                .freq_dim = 256,
                                                .text_dim = 64,
                                                .text_len = 32,
                                                .in_dim = 16,
                                                .out_dim = 16,
                                                .patch_size = {1, 2, 2},
                                                .eps = 1e-6};
static const struct VideoShape middle_video = {.frames = 2, .height = 32, .width = 32};

static bool wanted(const struct BenchFlags *flags, const char *part) {
    return strcmp(flags->what, "all") == 0 || strcmp(flags->what, part) == 0;
}

static bool read_config(struct Config *config, const struct Operands *operands,
                        struct VideoShape video, struct Error *err) {
    if (!config_load(config, operands->items[0], err)) return false;
    for (int i = 1; i < operands->n; i++)
        if (!config_override(config, operands->items[i], err)) return false;
    return config_check(config, err) && config_check_video(config, &video, err);
}

static void measure(struct BenchReport *report, const struct BenchFlags *flags,
                    const struct Backend *be, const struct Config *config,
                    struct VideoShape video) {
    const struct ModelConfig *model = config ? &config->model : NULL;
    int64_t batch = config ? config->train.micro_batch : 1;
    bench_machine(report, be);
    if (wanted(flags, "gemm")) bench_gemm(report, be, model, batch, video);
    if (wanted(flags, "block")) {
        bench_block(report, be, &middle_model, 1, middle_video);
        if (model) bench_block(report, be, model, batch, video);
    }
    if (config && wanted(flags, "step")) bench_steps(report, be, config, video);
}

static struct BackendChoice choose_backend(const struct BenchFlags *flags,
                                           const struct Config *config) {
    if (config) return config_device(config);
    struct BackendChoice choice = {
        .kind = strcmp(flags->device, "cuda") == 0 ? BACKEND_CUDA : BACKEND_CPU};
    dtype_parse(flags->precision, &choice.precision);
    return choice;
}

static bool bench_on(const struct BenchFlags *flags, const struct Backend *be,
                     const struct Config *config, struct VideoShape video, struct Error *err) {
    if (config && !bench_fits(config, video, be->act_dtype, err)) return false;
    struct BenchReport *report =
        bench_report_create(be, flags->seconds, strcmp(flags->of, "best") == 0);
    measure(report, flags, be, config, video);
    bool ok = !flags->json || bench_report_write(report, flags->json, err);
    bench_report_destroy(report);
    return ok;
}

static bool bench(const struct BenchFlags *flags, const struct Operands *operands,
                  struct Error *err) {
    struct VideoShape video = {flags->frames, flags->height, flags->width};
    bool configured = operands->n > 0;
    struct Config config;
    struct Backend *be;
    config_init(&config);
    bool ok = !configured || read_config(&config, operands, video, err);
    if (ok && !configured && strcmp(flags->what, "step") == 0)
        ok = error_set(err, "bench: --what step needs a CONFIG; usage: %s", bench_table.usage);
    if (ok) ok = backend_open(choose_backend(flags, configured ? &config : NULL), 0, &be, err);
    if (ok) {
        ok = bench_on(flags, be, configured ? &config : NULL, video, err);
        be->destroy(be);
    }
    config_free(&config);
    return ok;
}

int cmd_bench(int argc, char **argv) {
    struct BenchFlags flags;
    struct Operands operands;
    struct Error err = {0};
    int exit_code;
    if (!args_begin(&bench_table, argc, argv, &flags, &operands, &exit_code)) return exit_code;
    return bench(&flags, &operands, &err) ? EXIT_OK : error_report(&err);
}
