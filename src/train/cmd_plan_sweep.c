/* What cannot be read ends the command: a file, a key that does not exist, a value out of its
 * range.  What cannot be run, such as keys that contradict each other, becomes a row with its
 * reason. */
#include "train/cmd_plan_sweep.h"

#include <stdlib.h>
#include <string.h>

#include "data/json_file.h"
#include "train/plan_sweep_json.h"

/* Everything that the outputs are made from. */
struct Work {
    const struct PlanFlags *flags;
    const struct Operands *operands;
    const struct SweepCounts *counts;
    struct Machine machine;
    struct Network network;
    struct SweepKeys keys;
    enum SweepScale scale;
    struct Sweep *sweeps; /* [n], one for each CONFIG */
    int n;
};

static void work_free(struct Work *work) {
    for (int i = 0; i < work->n; i++) {
        for (int k = 0; k < work->keys.n_combinations; k++)
            if (work->sweeps[i].curves[k].name) sweep_curve_free(&work->sweeps[i].curves[k]);
        free(work->sweeps[i].curves);
    }
    free(work->sweeps);
    sweep_keys_free(&work->keys);
}

/* Plans combination i. */
static bool add_curve(struct Work *work, struct Sweep *sweep, int i,
                      const struct PlanTarget *target, struct Error *err) {
    struct Config config;
    struct PlanTarget of_curve = *target;
    config_init(&config);
    bool ok = plan_config_read(&config, sweep->path, work->operands, err) &&
              sweep_combination_apply(&work->keys, i, &config, err);
    if (ok) {
        char *name = sweep_combination_name(&work->keys, i);
        of_curve.act_dtype = config.device.precision;
        sweep_curve_make(&sweep->curves[i], name, &config, &of_curve, work->counts, work->scale);
        free(name);
    }
    config_free(&config);
    return ok;
}

/* Prints the title and finds the shape of the videos, which holds for all combinations.  For that
 * the configuration by itself must be sound. */
static bool begin_sweep(struct Work *work, struct Sweep *sweep, struct VideoShape *video,
                        struct Error *err) {
    struct Config config;
    const char *origin;
    config_init(&config);
    bool ok = plan_config_read(&config, sweep->path, work->operands, err) &&
              config_check(&config, err) &&
              plan_shape_find(work->flags, &config, video, &origin, err) &&
              (config_check_video(&config, video, err) || error_prefix(err, "%s", sweep->path));
    if (ok) {
        printf("%s%s: %s scaling on %s, %s\n", work->n > 1 ? "\n\n" : "", sweep->path,
               sweep_scale_name(work->scale), work->machine.name, work->network.name);
        plan_shape_print(&config, *video, origin, stdout);
    }
    config_free(&config);
    return ok;
}

static bool add_sweep(struct Work *work, const char *path, struct Error *err) {
    struct Sweep *sweep = &work->sweeps[work->n++];
    struct PlanTarget target = {.machine = &work->machine, .network = &work->network};
    *sweep = (struct Sweep){.path = path,
                            .machine = &work->machine,
                            .network = &work->network,
                            .keys = &work->keys,
                            .scale = work->scale};
    sweep->curves = xcalloc((size_t)work->keys.n_combinations * sizeof *sweep->curves);
    if (!begin_sweep(work, sweep, &target.video, err)) return false;
    for (int i = 0; i < work->keys.n_combinations; i++)
        if (!add_curve(work, sweep, i, &target, err)) return false;
    sweep_print(sweep, stdout);
    return true;
}

static bool write_json(const struct Work *work, struct Error *err) {
    json_t *root = json_array();
    for (int i = 0; i < work->n; i++) json_array_append_new(root, sweep_json(&work->sweeps[i]));
    bool written = json_file_save(work->flags->json, root, err);
    json_decref(root);
    return written;
}

/* Where the picture goes: as --png says, or beside --json under the same name; else NULL. */
static char *picture_path(const struct PlanFlags *flags) {
    if (flags->png) return xstrdup(flags->png);
    if (!flags->json) return NULL;
    size_t n_bytes = strlen(flags->json);
    bool suffix = n_bytes > 5 && !strcmp(flags->json + n_bytes - 5, ".json");
    return xprintf("%.*s.png", (int)(n_bytes - (suffix ? 5 : 0)), flags->json);
}

static bool write_files(const struct Work *work, struct Error *err) {
    char *png = picture_path(work->flags);
    bool written = (!work->flags->json || write_json(work, err)) &&
                   (!png || sweep_draw(png, work->sweeps, work->n, err));
    free(png);
    return written;
}

static bool make_sweeps(struct Work *work, struct Error *err) {
    if (!plan_tables_load(work->flags, &work->machine, &work->network, err)) return false;
    if (!sweep_keys_parse(&work->keys, work->flags->sweep, err)) return false;
    work->sweeps = xcalloc((size_t)work->operands->n * sizeof *work->sweeps);
    for (int i = 0; i < work->operands->n; i++)
        if (!plan_is_override(work->operands->items[i]) &&
            !add_sweep(work, work->operands->items[i], err))
            return false;
    return write_files(work, err);
}

bool plan_sweep_command(const struct PlanFlags *flags, const struct Operands *operands,
                        const struct SweepCounts *counts, bool *any_works, struct Error *err) {
    struct Work work = {.flags = flags,
                        .operands = operands,
                        .counts = counts,
                        .scale = strcmp(flags->scale, "weak") ? SWEEP_STRONG : SWEEP_WEAK};
    bool ok = make_sweeps(&work, err);
    *any_works = true;
    for (int i = 0; ok && i < work.n; i++) *any_works = *any_works && sweep_works(&work.sweeps[i]);
    work_free(&work);
    return ok;
}
