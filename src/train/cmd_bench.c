/* The command: reads its flags and lets the parts measure. */
#include <string.h>

#include "args.h"
#include "train/bench.h"

struct BenchFlags {
    const char *what, *json, *of, *device, *precision, *folder;
    double seconds, nominal;
    int64_t frames, height, width, side, mib, shards, ranks, zstd;
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
     .choices = "all|machine|gemm|attention|elementwise|block|step|recompute|checkpoint",
     .help =
         "one part only; the machine's peak is measured in any case, and with a block its parts"},
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
    BENCH_FLAG(side, ARG_INT, "8192", 16, 65536, "of the square product that is a device's peak"),
    {.name = "nominal-tflops",
     .type = ARG_REAL,
     .offset = offsetof(struct BenchFlags, nominal),
     .fallback = "0",
     .max = 1e6,
     .help = "the published peak, which MFU is then told of; 0: the measured one"},
    BENCH_FLAG(frames, ARG_INT, "4", 1, 1e5, "latent frames of a sample of CONFIG's step"),
    BENCH_FLAG(height, ARG_INT, "16", 1, 1e5, "latent rows"),
    BENCH_FLAG(width, ARG_INT, "16", 1, 1e5, "latent columns"),
    BENCH_FLAG(folder, ARG_TEXT, "/tmp", 0, 0, "where `checkpoint` writes, on the disk to measure"),
    BENCH_FLAG(mib, ARG_INT, "512", 1, 1e6, "MiB of its weights"),
    BENCH_FLAG(shards, ARG_INT, "4", 1, 1000, "how many ranks save it"),
    BENCH_FLAG(ranks, ARG_INT, "3", 1, 1000, "how many ranks load it"),
    BENCH_FLAG(zstd, ARG_INT, "1", 0, 19, "its compression; 0: none"),
};

static const struct ArgTable bench_table = {
    .usage = "tmd bench [CONFIG] [section.key=value ...] [flags]",
    .help =
        "Measures this machine's peak in arithmetic and in copying, and how near to it a block's\n"
        "products, attentions and passes over memory come, and the whole block: CONFIG's, or a\n"
        "middle-sized one; with CONFIG also the steps of its stage by phase and operation, on\n"
        "random data of train.micro_batch samples.  `recompute`: that step with each value of\n"
        "train.recompute.  `checkpoint`: how fast a sharded one is saved and loaded, against a\n"
        "plain read.  OMP_NUM_THREADS chooses the threads.",
    .args = bench_args,
    .n_args = sizeof bench_args / sizeof *bench_args,
    .max_operands = -1,
};

/* What is measured without CONFIG: 512 tokens of width 512. */
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
                    const struct BenchBackends *backends, const struct Config *config,
                    struct VideoShape video) {
    struct BenchSize size = {&middle_model, 1, middle_video};
    if (config) size = (struct BenchSize){&config->model, config->train.micro_batch, video};
    const struct Backend *be = backends->be;
    bool block = wanted(flags, "block");
    double parts = 0.0; /* seconds of the block's products and attentions */
    bench_machine(report, be, flags->side);
    if (!config && wanted(flags, "gemm")) bench_squares(report, be);
    if (block || wanted(flags, "gemm")) parts += bench_layers(report, backends, &size);
    if (block || wanted(flags, "attention")) parts += bench_attention(report, backends, &size);
    if (wanted(flags, "elementwise")) bench_elementwise(report, be, &size);
    if (block) bench_block(report, be, &size, parts);
    if (config && wanted(flags, "step")) bench_steps(report, be, config, video);
    if (config && strcmp(flags->what, "recompute") == 0) bench_policies(report, be, config, video);
}

static struct BackendChoice choose_backend(const struct BenchFlags *flags,
                                           const struct Config *config) {
    struct BackendChoice choice = {
        .kind = strcmp(flags->device, "cuda") == 0 ? BACKEND_CUDA : BACKEND_CPU, .graphs = true};
    dtype_parse(flags->precision, &choice.precision);
    if (config) choice = config_device(config);
    choice.tune_gemm = true;
    return choice;
}

static void close_backends(const struct BenchBackends *backends) {
    struct Backend *all[] = {backends->be, backends->first_suggestion, backends->deterministic,
                             backends->every_plan};
    for (int i = 0; i < 4; i++)
        if (all[i]) all[i]->destroy(all[i]);
}

static bool open_backends(struct BenchBackends *backends, struct BackendChoice choice,
                          struct Error *err) {
    struct BackendChoice suggestion = choice, deterministic = choice, every_plan = choice;
    suggestion.tune_gemm = false;
    deterministic.deterministic = true;
    every_plan.every_plan = true;
    return backend_open(choice, 0, &backends->be, err) &&
           backend_open(suggestion, 0, &backends->first_suggestion, err) &&
           backend_open(deterministic, 0, &backends->deterministic, err) &&
           backend_open(every_plan, 0, &backends->every_plan, err);
}

static bool bench_on(const struct BenchFlags *flags, const struct BenchBackends *backends,
                     const struct Config *config, struct VideoShape video, struct Error *err) {
    bool steps = config && wanted(flags, "step");
    if (steps && !bench_fits(config, video, backends->be, err)) return false;
    struct BenchReport *report = bench_report_create(
        backends->be, flags->seconds, strcmp(flags->of, "best") == 0, 1e12 * flags->nominal);
    measure(report, flags, backends, config, video);
    struct BenchCheckpoint checkpoint = {flags->folder, flags->mib, flags->shards, flags->ranks,
                                         flags->zstd};
    bool ok = strcmp(flags->what, "checkpoint") != 0 ||
              bench_checkpoint(report, backends->be, &checkpoint, err);
    ok = ok && (!flags->json || bench_report_write(report, flags->json, err));
    bench_report_destroy(report);
    return ok;
}

static bool bench(const struct BenchFlags *flags, const struct Operands *operands,
                  struct Error *err) {
    struct VideoShape video = {flags->frames, flags->height, flags->width};
    bool configured = operands->n > 0;
    bool of_steps = strcmp(flags->what, "step") == 0 || strcmp(flags->what, "recompute") == 0;
    struct BenchBackends backends = {0};
    struct Config config;
    config_init(&config);
    bool ok = !configured || read_config(&config, operands, video, err);
    if (ok && !configured && of_steps)
        ok = error_set(err, "bench: --what %s needs a CONFIG; usage: %s", flags->what,
                       bench_table.usage);
    const struct Config *given = configured ? &config : NULL;
    ok = ok && open_backends(&backends, choose_backend(flags, given), err) &&
         bench_on(flags, &backends, given, video, err);
    close_backends(&backends);
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
