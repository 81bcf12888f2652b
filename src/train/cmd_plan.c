/* The command: tables, shapes and configurations in, one plan for each configuration out. */
#include "train/cmd_plan.h"

#include <string.h>
#include <unistd.h>

#include "args.h"
#include "data/json_file.h"
#include "train/data_fit.h"
#include "train/plan_json.h"

struct PlanFlags {
    int64_t gpus, frames, height, width;
    const char *gpu, *network, *tables, *json;
};

#define INT_FLAG(flag, fallback, least, most, help)                                                \
    ARG_INT_ROW(struct PlanFlags, #flag, flag, fallback, least, most, help)
#define TEXT_FLAG(flag, fallback, help) ARG_TEXT_ROW(struct PlanFlags, #flag, flag, fallback, help)

static const struct Arg plan_args[] = {
    INT_FLAG(gpus, "8", 1, 1e6, "how many"),
    TEXT_FLAG(gpu, "h100", "which: a table in TABLES/gpu, or the path of one"),
    TEXT_FLAG(network, "infiniband", "what joins them: a table in TABLES/network, or a path"),
    TEXT_FLAG(tables, "configs/machines", "folder of the tables"),
    INT_FLAG(frames, "0", 0, 1e5, "latent frames of a video; 0: as the data, or 21"),
    INT_FLAG(height, "0", 0, 1e5, "latent rows; 0: as the data, or 60"),
    INT_FLAG(width, "0", 0, 1e5, "latent columns; 0: as the data, or 104"),
    TEXT_FLAG(json, "", "write the numbers to this file too"),
};

static const struct ArgTable plan_table = {
    .usage = "tmd plan CONFIG... [section.key=value ...] [flags]",
    .help =
        "Tells what training would take, without a GPU: memory, arithmetic and time by\n"
        "operation and phase, sums over GPUs, days.  The run's own code is rehearsed on a\n"
        "backend that only counts; speeds are those of the tables.  Several CONFIGs are stages\n"
        "run one after another; overrides hold for all.  Exit code 1: one does not fit.",
    .args = plan_args,
    .n_args = sizeof plan_args / sizeof *plan_args,
    .min_operands = 1,
    .max_operands = -1,
};

/* ---- tables */

/* A name stands for TABLES/kind/NAME.yaml, what looks like a path for itself. */
static char *table_path(const struct PlanFlags *flags, const char *kind, const char *name) {
    if (strchr(name, '/') || strchr(name, '.')) return xstrdup(name);
    return xprintf("%s/%s/%s.yaml", flags->tables, kind, name);
}

static bool load_tables(const struct PlanFlags *flags, struct Machine *machine,
                        struct Network *network, struct Error *err) {
    char *gpu = table_path(flags, "gpu", flags->gpu);
    char *net = table_path(flags, "network", flags->network);
    bool ok = machine_load(machine, gpu, err) || error_prefix(err, "--gpu %s", flags->gpu);
    ok = ok &&
         (network_load(network, net, err) || error_prefix(err, "--network %s", flags->network));
    free(gpu);
    free(net);
    return ok;
}

/* ---- one configuration */

static bool is_override(const char *operand) {
    return strchr(operand, '=') != NULL;
}

static bool read_config(struct Config *config, const char *path, const struct Operands *operands,
                        struct Error *err) {
    if (!config_load(config, path, err)) return false;
    for (int i = 0; i < operands->n; i++)
        if (is_override(operands->items[i]) && !config_override(config, operands->items[i], err))
            return false;
    return config_check(config, err);
}

/* The shape of the data's videos, and true in *found, if all files are there. */
static bool data_shape(const struct Config *config, struct VideoShape *video, bool *found,
                       struct Error *err) {
    const struct StringList *files = &config->data.files;
    *found = files->n > 0;
    for (int i = 0; i < files->n; i++) *found = *found && access(files->items[i], F_OK) == 0;
    if (!*found) return true;
    struct Dataset *data = dataset_open(files->items, files->n, err);
    bool ok = data && data_fits(config, data, files->items[0], err);
    if (ok) *video = data_video_shape(dataset_info(data));
    dataset_close(data);
    return ok;
}

/* *origin: where the shape is from. */
static bool find_shape(const struct PlanFlags *flags, const struct Config *config,
                       struct VideoShape *video, const char **origin, struct Error *err) {
    bool found;
    *video = (struct VideoShape){.frames = 21, .height = 60, .width = 104};
    if (!data_shape(config, video, &found, err)) return false;
    *origin =
        found ? "as the data's" : "assumed, for the data is not there: 81 frames of 480 x 832";
    if (flags->frames || flags->height || flags->width) *origin = "as the flags say";
    if (flags->frames) video->frames = flags->frames;
    if (flags->height) video->height = flags->height;
    if (flags->width) video->width = flags->width;
    return true;
}

static void print_title(const struct Plan *plan, const char *path, const char *origin) {
    const struct PlanTarget *t = &plan->target;
    const struct Config *config = plan->config;
    printf("%s: %lld iterations of %lld samples on %d x %s, %s\n", path,
           (long long)config->train.iterations, (long long)config->train.global_batch, t->n_gpus,
           t->machine->name, t->network->name);
    printf("latents of %lld x %lld x %lld x %lld, %lld tokens (%s)\n",
           (long long)config->model.in_dim, (long long)t->video.frames, (long long)t->video.height,
           (long long)t->video.width, (long long)plan->tokens, origin);
}

struct Answers {
    json_t *plans;
    double days;
    int n;
    bool fit;
};

static void answer(struct Answers *answers, const struct Plan *plan, const char *path,
                   const char *origin) {
    if (answers->n++) printf("\n\n");
    print_title(plan, path, origin);
    plan_print(plan, stdout);
    json_array_append_new(answers->plans, plan_json(plan, path));
    answers->days += plan_run_seconds(plan) / 86400.0;
    answers->fit = answers->fit && plan_fits(plan);
}

static bool plan_one(const struct PlanFlags *flags, const char *path,
                     const struct Operands *operands, struct PlanTarget target,
                     struct Answers *answers, struct Error *err) {
    struct Config config;
    struct Plan plan;
    const char *origin;
    config_init(&config);
    bool ok = read_config(&config, path, operands, err) &&
              find_shape(flags, &config, &target.video, &origin, err);
    if (ok) {
        target.act_dtype = config.device.precision;
        ok = plan_make(&plan, &config, &target, err) || error_prefix(err, "%s", path);
    }
    if (ok) answer(answers, &plan, path, origin);
    config_free(&config);
    return ok;
}

/* ---- all of them */

static bool plan_all(const struct PlanFlags *flags, const struct Operands *operands,
                     struct Answers *answers, struct Error *err) {
    struct Machine machine;
    struct Network network;
    struct PlanTarget target = {
        .machine = &machine, .network = &network, .n_gpus = (int)flags->gpus};
    if (!load_tables(flags, &machine, &network, err)) return false;
    if (!plan_link(&target.link, &machine, &network, target.n_gpus, err)) return false;
    for (int i = 0; i < operands->n; i++)
        if (!is_override(operands->items[i]) &&
            !plan_one(flags, operands->items[i], operands, target, answers, err))
            return false;
    if (!answers->n)
        return error_set(err,
                         "plan: expected the path of a configuration, got overrides alone; "
                         "usage: %s",
                         plan_table.usage);
    if (answers->n > 1) printf("\n\nall %d stages: %.4g days\n", answers->n, answers->days);
    return !flags->json || json_file_save(flags->json, answers->plans, err);
}

int cmd_plan(int argc, char **argv) {
    struct PlanFlags flags;
    struct Operands operands;
    struct Error err = {0};
    int exit_code;
    if (!args_begin(&plan_table, argc, argv, &flags, &operands, &exit_code)) return exit_code;
    struct Answers answers = {.plans = json_array(), .fit = true};
    bool ok = plan_all(&flags, &operands, &answers, &err);
    json_decref(answers.plans);
    if (!ok) return error_report(&err);
    return answers.fit ? EXIT_OK : EXIT_FAILED;
}
