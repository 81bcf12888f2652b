/* tmd plot: a panel for each run and each group of keys ("loss" with "loss.vsd", "loss.gan", ...),
 * or with --overlay for each group, all runs in it. */
#include "data/cmd_plot.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "args.h"
#include "data/plot.h"
#include "data/plot_metrics.h"

enum { MAX_RUNS = 64, MAX_GROUPS = 64, MAX_PANELS = 256, MAX_SERIES = 4096 };

struct Flags {
    const char *out, *keys, *title, *scale;
    bool overlay;
};

static const struct Arg ARGS[] = {
    {.name = "out",
     .type = ARG_TEXT,
     .offset = offsetof(struct Flags, out),
     .help = "the PNG to write"},
    {.name = "keys",
     .type = ARG_TEXT,
     .offset = offsetof(struct Flags, keys),
     .fallback = "",
     .help = "groups of keys, with commas between: a panel each; \"loss\" takes \"loss.vsd\" too "
             "(default: all that begin with loss or grad)"},
    {.name = "title",
     .type = ARG_TEXT,
     .offset = offsetof(struct Flags, title),
     .fallback = "",
     .help = "a line above the figure"},
    {.name = "scale",
     .type = ARG_CHOICE,
     .offset = offsetof(struct Flags, scale),
     .fallback = "auto",
     .choices = "auto|linear|log",
     .help = "the y axes; auto: log where values span a factor of 30"},
    {.name = "overlay",
     .type = ARG_SWITCH,
     .offset = offsetof(struct Flags, overlay),
     .help = "draw all runs into the same panels"},
};

static const struct ArgTable TABLE = {
    .usage = "tmd plot [flags] RUN...",
    .help = "Draws curves from metrics.jsonl in the folders RUN (or the files RUN) as PNG: a faint "
            "line for the values, a strong one for their running mean.",
    .args = ARGS,
    .n_args = sizeof ARGS / sizeof ARGS[0],
    .min_operands = 1,
    .max_operands = MAX_RUNS,
};

struct Run {
    char *name; /* the last part of its path */
    struct Metrics metrics;
};

/* Everything that a figure points to. */
struct Work {
    int n_runs, n_groups, n_panels, n_series;
    struct Run runs[MAX_RUNS];
    char *groups[MAX_GROUPS];
    struct PlotPanel panels[MAX_PANELS];
    char *panel_titles[MAX_PANELS];
    struct PlotSeries series[MAX_SERIES];
    char *series_names[MAX_SERIES];
};

static void work_free(struct Work *work) {
    for (int i = 0; i < work->n_runs; i++) {
        free(work->runs[i].name);
        metrics_free(&work->runs[i].metrics);
    }
    for (int i = 0; i < work->n_groups; i++) free(work->groups[i]);
    for (int i = 0; i < work->n_panels; i++) free(work->panel_titles[i]);
    for (int i = 0; i < work->n_series; i++) free(work->series_names[i]);
    free(work);
}

static bool read_run(struct Work *work, const char *path, struct Error *err) {
    char *bare = xstrdup(path);
    for (size_t n = strlen(bare); n > 1 && bare[n - 1] == '/'; n--) bare[n - 1] = '\0';
    struct stat status;
    bool folder = stat(bare, &status) == 0 && S_ISDIR(status.st_mode);
    char *file = folder ? xprintf("%s/metrics.jsonl", bare) : xstrdup(bare);
    const char *slash = strrchr(bare, '/');
    struct Run *run = &work->runs[work->n_runs++];
    run->name = xstrdup(slash && slash[1] ? slash + 1 : bare);
    bool read = metrics_read(&run->metrics, file, err);
    free(file);
    free(bare);
    return read;
}

/* Adds a group of keys unless it is there. */
static bool add_group(struct Work *work, const char *name, size_t n_bytes, struct Error *err) {
    for (int i = 0; i < work->n_groups; i++)
        if (strlen(work->groups[i]) == n_bytes && strncmp(work->groups[i], name, n_bytes) == 0)
            return true;
    if (work->n_groups == MAX_GROUPS)
        return error_set(err, "more than %d groups of keys to plot", MAX_GROUPS);
    work->groups[work->n_groups++] = xprintf("%.*s", (int)n_bytes, name);
    return true;
}

/* The groups that --keys names, or the first parts of all keys that begin with loss or grad. */
static bool choose_groups(struct Work *work, const char *keys, struct Error *err) {
    for (const char *at = keys; at && *at;) {
        size_t n_bytes = strcspn(at, ",");
        if (n_bytes > 0 && !add_group(work, at, n_bytes, err)) return false;
        at += n_bytes + (at[n_bytes] == ',');
    }
    for (int r = 0; !keys && r < work->n_runs; r++) {
        for (int c = 0; c < work->runs[r].metrics.n_curves; c++) {
            const char *key = work->runs[r].metrics.curves[c].key;
            if (strncmp(key, "loss", 4) != 0 && strncmp(key, "grad", 4) != 0) continue;
            if (!add_group(work, key, strcspn(key, "."), err)) return false;
        }
    }
    return true;
}

/* Adds the curves of a run that belong to a group to the panel begun last. */
static bool add_curves(struct Work *work, const struct Run *run, const char *group, bool overlay,
                       struct Error *err) {
    struct PlotPanel *panel = &work->panels[work->n_panels - 1];
    for (int c = 0; c < run->metrics.n_curves; c++) {
        const struct MetricsCurve *curve = &run->metrics.curves[c];
        if (!metrics_key_in(curve->key, group)) continue;
        if (work->n_series == MAX_SERIES)
            return error_set(err, "more than %d curves to plot", MAX_SERIES);
        char *name = overlay ? xprintf("%s: %s", run->name, curve->key) : xstrdup(curve->key);
        work->series_names[work->n_series] = name;
        work->series[work->n_series++] = (struct PlotSeries){
            .name = name,
            .n_points = curve->n_points,
            .x = curve->iteration,
            .y = curve->value,
            .style = PLOT_NOISY,
        };
        panel->n_series++;
    }
    return true;
}

/* A panel of runs first .. last-1 and one group; dropped again if it stays empty. */
static bool add_panel(struct Work *work, int first, int last, const char *group,
                      const struct Flags *flags, struct Error *err) {
    if (work->n_panels == MAX_PANELS)
        return error_set(err, "more than %d panels to plot", MAX_PANELS);
    enum PlotScale scale = strcmp(flags->scale, "log") == 0      ? PLOT_LOG
                           : strcmp(flags->scale, "linear") == 0 ? PLOT_LINEAR
                                                                 : PLOT_AUTO;
    char *title =
        flags->overlay ? xstrdup(group) : xprintf("%s: %s", work->runs[first].name, group);
    work->panel_titles[work->n_panels] = title;
    struct PlotPanel *panel = &work->panels[work->n_panels++];
    *panel = (struct PlotPanel){
        .title = title,
        .x_label = "iteration",
        .y_scale = scale,
        .series = &work->series[work->n_series],
    };
    for (int r = first; r < last; r++)
        if (!add_curves(work, &work->runs[r], group, flags->overlay, err)) return false;
    if (panel->n_series == 0) free(work->panel_titles[--work->n_panels]);
    return true;
}

static bool no_curves(const struct Work *work, const struct Flags *flags, struct Error *err) {
    char *known = xstrdup("");
    for (int c = 0; c < work->runs[0].metrics.n_curves && strlen(known) < 512; c++) {
        char *longer = xprintf("%s%s%s", known, c ? ", " : "", work->runs[0].metrics.curves[c].key);
        free(known);
        known = longer;
    }
    error_set(err, "nothing to plot: no key of %s is in %s; %s has: %s",
              work->n_runs > 1 ? "these runs" : "this run",
              flags->keys ? flags->keys : "a group that begins with loss or grad",
              work->runs[0].name, *known ? known : "no line at all");
    free(known);
    return false;
}

static bool plot_runs(struct Work *work, const struct Flags *flags, const struct Operands *runs,
                      struct Error *err) {
    for (int i = 0; i < runs->n; i++)
        if (!read_run(work, runs->items[i], err)) return false;
    if (!choose_groups(work, flags->keys, err)) return false;
    int step = flags->overlay ? work->n_runs : 1;
    for (int r = 0; r < work->n_runs; r += step)
        for (int g = 0; g < work->n_groups; g++)
            if (!add_panel(work, r, r + step, work->groups[g], flags, err)) return false;
    if (work->n_panels == 0) return no_curves(work, flags, err);
    struct PlotFigure figure = {
        .title = flags->title, .n_panels = work->n_panels, .n_columns = 2, .panels = work->panels};
    return plot_write_png(flags->out, &figure, err);
}

int cmd_plot(int argc, char **argv) {
    struct Flags flags;
    struct Operands runs;
    int exit_code;
    if (!args_begin(&TABLE, argc, argv, &flags, &runs, &exit_code)) return exit_code;
    struct Error err;
    struct Work *work = xcalloc(sizeof *work);
    exit_code = plot_runs(work, &flags, &runs, &err) ? EXIT_OK : error_report(&err);
    work_free(work);
    return exit_code;
}
