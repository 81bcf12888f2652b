/* The command: its flags, and one plan for each configuration; comparisons: cmd_plan_sweep.c. */
#include "train/cmd_plan.h"

#include "data/json_file.h"
#include "train/cmd_plan_sweep.h"
#include "train/plan_json.h"

#define INT_FLAG(flag, fallback, least, most, help)                                                \
    ARG_INT_ROW(struct PlanFlags, #flag, flag, fallback, least, most, help)
#define TEXT_FLAG(flag, fallback, help) ARG_TEXT_ROW(struct PlanFlags, #flag, flag, fallback, help)

static const struct Arg plan_args[] = {
    TEXT_FLAG(gpus, "8", "how many; a list such as 8,64,512 compares"),
    TEXT_FLAG(gpu, "h100", "which: a table in TABLES/gpu, or the path of one"),
    TEXT_FLAG(network, "infiniband", "what joins them: a table in TABLES/network, or a path"),
    TEXT_FLAG(tables, "configs/machines", "folder of the tables"),
    INT_FLAG(frames, "0", 0, 1e5, "latent frames of a video; 0: as the data, or 21"),
    INT_FLAG(height, "0", 0, 1e5, "latent rows; 0: as the data, or 60"),
    INT_FLAG(width, "0", 0, 1e5, "latent columns; 0: as the data, or 104"),
    TEXT_FLAG(json, "", "write the numbers to this file too"),
    TEXT_FLAG(sweep, "", "compare values of keys: key=value,value,key=value,value"),
    {.name = "scale",
     .type = ARG_CHOICE,
     .offset = offsetof(struct PlanFlags, scale),
     .fallback = "strong",
     .choices = "strong|weak",
     .help = "train.global_batch stays, or grows with --gpus"},
    TEXT_FLAG(png, "", "draw the scaling curve to this file, else beside --json"),
};

static const struct ArgTable plan_table = {
    .usage = "tmd plan CONFIG... [section.key=value ...] [flags]",
    .help =
        "Tells what training would take, without a GPU: memory, arithmetic and time by\n"
        "operation and phase, sums over GPUs, days.  The run's own code is rehearsed on a\n"
        "backend that only counts; speeds are those of the tables.  Several CONFIGs are stages\n"
        "run one after another; overrides hold for all.  Exit code 1: one does not fit.\n"
        "\n"
        "With a list of --gpus, or with --sweep, it compares: for every combination of the keys'\n"
        "values, as in --sweep parallel.shard=none,full,parallel.sequence=1,2 (an item with '='\n"
        "begins a key), and every number of GPUs a row; then up to how many GPUs each scales,\n"
        "and why no further.  Exit code 1: nothing fits.",
    .args = plan_args,
    .n_args = sizeof plan_args / sizeof *plan_args,
    .min_operands = 1,
    .max_operands = -1,
};

/* ---- one configuration */

static void print_title(const struct Plan *plan, const char *path, const char *origin) {
    const struct PlanTarget *t = &plan->target;
    const struct Config *config = plan->config;
    printf("%s: %lld iterations of %lld samples on %d x %s, %s\n", path,
           (long long)config->train.iterations, (long long)config->train.global_batch, t->n_gpus,
           t->machine->name, t->network->name);
    plan_shape_print(config, t->video, origin, stdout);
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
    bool ok = plan_config_read(&config, path, operands, err) && config_check(&config, err) &&
              plan_shape_find(flags, &config, &target.video, &origin, err);
    if (ok) {
        target.act_dtype = config.device.precision;
        ok = plan_make(&plan, &config, &target, err) || error_prefix(err, "%s", path);
    }
    if (ok) answer(answers, &plan, path, origin);
    config_free(&config);
    return ok;
}

/* ---- all of them */

static bool plan_all(const struct PlanFlags *flags, const struct Operands *operands, int n_gpus,
                     struct Answers *answers, struct Error *err) {
    struct Machine machine;
    struct Network network;
    struct PlanTarget target = {.machine = &machine, .network = &network, .n_gpus = n_gpus};
    if (!plan_tables_load(flags, &machine, &network, err)) return false;
    if (!plan_link(&target.link, &machine, &network, n_gpus, err)) return false;
    for (int i = 0; i < operands->n; i++)
        if (!plan_is_override(operands->items[i]) &&
            !plan_one(flags, operands->items[i], operands, target, answers, err))
            return false;
    if (answers->n > 1) printf("\n\nall %d stages: %.4g days\n", answers->n, answers->days);
    return !flags->json || json_file_save(flags->json, answers->plans, err);
}

static bool check_operands(const struct Operands *operands, struct Error *err) {
    for (int i = 0; i < operands->n; i++)
        if (!plan_is_override(operands->items[i])) return true;
    return error_set(err,
                     "plan: expected the path of a configuration, got overrides alone; usage: %s",
                     plan_table.usage);
}

/* *fits: whether each CONFIG fits, somewhere in its sweep. */
static bool run(const struct PlanFlags *flags, const struct Operands *operands, bool *fits,
                struct Error *err) {
    struct SweepCounts counts;
    if (!check_operands(operands, err) || !sweep_counts_parse(&counts, flags->gpus, err))
        return false;
    if (flags->sweep || counts.n > 1)
        return plan_sweep_command(flags, operands, &counts, fits, err);
    if (flags->png)
        return error_set(err,
                         "--png draws how a run scales: expected --sweep or several --gpus, got "
                         "--gpus %s alone",
                         flags->gpus);
    struct Answers answers = {.plans = json_array(), .fit = true};
    bool ok = plan_all(flags, operands, counts.gpus[0], &answers, err);
    json_decref(answers.plans);
    *fits = answers.fit;
    return ok;
}

int cmd_plan(int argc, char **argv) {
    struct PlanFlags flags;
    struct Operands operands;
    struct Error err = {0};
    int exit_code;
    bool fits;
    if (!args_begin(&plan_table, argc, argv, &flags, &operands, &exit_code)) return exit_code;
    if (!run(&flags, &operands, &fits, &err)) return error_report(&err);
    return fits ? EXIT_OK : EXIT_FAILED;
}
