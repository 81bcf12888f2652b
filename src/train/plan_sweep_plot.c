/* The scaling curves of sweeps as PNG. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/plot.h"
#include "train/plan_sweep.h"

enum { MAX_POINTS = SWEEP_MAX_COMBINATIONS * SWEEP_MAX_COUNTS };

/* One panel's series and what they point to.  The last two stand for no combination. */
struct Curves {
    double y[SWEEP_MAX_COMBINATIONS][SWEEP_MAX_COUNTS]; /* NaN: not planned */
    double ideal[SWEEP_MAX_COUNTS], misfit_x[MAX_POINTS], misfit_y[MAX_POINTS];
    struct PlotSeries series[SWEEP_MAX_COMBINATIONS + 2];
    int64_t n_misfits;
};

struct Drawing {
    double gpus[SWEEP_MAX_COUNTS];
    char *names[SWEEP_MAX_COMBINATIONS];
    struct Curves rate, yield;
};

/* Samples per second, and per hour of a GPU. */
static double rate_of(const struct SweepPoint *point) {
    return sweep_samples_per_second(point);
}

static double yield_of(const struct SweepPoint *point) {
    return 3600.0 * sweep_samples_per_second(point) / point->n_gpus;
}

/* Keys without their sections: "shard=full sequence=2". */
static char *short_name(const char *name) {
    char *text = xstrdup(name), *to = text;
    for (const char *from = name; *from;) {
        size_t n_key = strcspn(from, "= "), n_word = strcspn(from, " ");
        const char *dot = memchr(from, '.', n_key);
        const char *begin = dot ? dot + 1 : from, *end = from + n_word + (from[n_word] == ' ');
        memmove(to, begin, (size_t)(end - begin));
        to += end - begin;
        from = end;
    }
    *to = '\0';
    return text;
}

/* The best yield of all points that are planned, or of those alone that work. */
static double best_yield(const struct Sweep *sweep, bool working) {
    double best = 0.0;
    for (int i = 0; i < sweep->keys->n_combinations; i++) {
        const struct SweepCurve *curve = &sweep->curves[i];
        for (int k = 0; k < curve->n_points; k++) {
            const struct SweepPoint *point = &curve->points[k];
            if (!point->why_not && (point->fits || !working)) best = fmax(best, yield_of(point));
        }
    }
    return best;
}

static void add_curve(struct Curves *c, int i, const struct SweepCurve *curve, struct Drawing *d,
                      double (*value)(const struct SweepPoint *)) {
    for (int k = 0; k < curve->n_points; k++) {
        const struct SweepPoint *point = &curve->points[k];
        c->y[i][k] = point->why_not ? NAN : value(point);
        if (point->why_not || point->fits) continue;
        c->misfit_x[c->n_misfits] = point->n_gpus;
        c->misfit_y[c->n_misfits++] = c->y[i][k];
    }
    c->series[i] = (struct PlotSeries){.name = d->names[i],
                                       .n_points = curve->n_points,
                                       .x = d->gpus,
                                       .y = c->y[i],
                                       .style = PLOT_MARKED};
}

/* Returns the number of series. */
static int add_curves(struct Curves *c, const struct Sweep *sweep, struct Drawing *d,
                      double (*value)(const struct SweepPoint *)) {
    const int n = sweep->keys->n_combinations, n_points = sweep->curves[0].n_points;
    for (int i = 0; i < n; i++) add_curve(c, i, &sweep->curves[i], d, value);
    c->series[n] = (struct PlotSeries){
        .name = "ideal", .n_points = n_points, .x = d->gpus, .y = c->ideal, .style = PLOT_DASHED};
    c->series[n + 1] = (struct PlotSeries){.name = "does not fit",
                                           .n_points = c->n_misfits,
                                           .x = c->misfit_x,
                                           .y = c->misfit_y,
                                           .style = PLOT_RINGS};
    return n + (c->n_misfits > 0 ? 2 : 1);
}

static void draw_panels(struct PlotPanel panels[2], struct Drawing *d, const struct Sweep *sweep) {
    const int n_points = sweep->curves[0].n_points;
    const double best = best_yield(sweep, sweep_works(sweep));
    for (int i = 0; i < sweep->keys->n_combinations; i++)
        d->names[i] = short_name(sweep->curves[i].name);
    for (int k = 0; k < n_points; k++) {
        d->gpus[k] = sweep->curves[0].points[k].n_gpus;
        d->yield.ideal[k] = best;
        d->rate.ideal[k] = best * d->gpus[k] / 3600.0;
    }
    panels[0] = (struct PlotPanel){.title = sweep->path,
                                   .x_label = "GPUs",
                                   .y_label = "samples per second",
                                   .x_scale = PLOT_LOG,
                                   .y_scale = PLOT_LOG,
                                   .n_x_ticks = n_points,
                                   .x_ticks = d->gpus,
                                   .n_series = add_curves(&d->rate, sweep, d, rate_of),
                                   .series = d->rate.series};
    panels[1] = panels[0];
    panels[1].y_label = "samples per GPU-hour";
    panels[1].y_scale = PLOT_LINEAR;
    panels[1].n_series = add_curves(&d->yield, sweep, d, yield_of);
    panels[1].series = d->yield.series;
}

bool sweep_draw(const char *path, const struct Sweep *sweeps, int n_sweeps, struct Error *err) {
    struct Drawing *drawings = xcalloc((size_t)n_sweeps * sizeof *drawings);
    struct PlotPanel *panels = xcalloc(2 * (size_t)n_sweeps * sizeof *panels);
    char *title = xprintf("%s scaling on %s, %s", sweep_scale_name(sweeps->scale),
                          sweeps->machine->name, sweeps->network->name);
    struct PlotFigure figure = {.title = title,
                                .n_panels = 2 * n_sweeps,
                                .n_columns = 2,
                                .panel_width = 560,
                                .panel_height = 440,
                                .panels = panels};
    for (int i = 0; i < n_sweeps; i++) draw_panels(&panels[2 * i], &drawings[i], &sweeps[i]);
    bool written = plot_write_png(path, &figure, err);
    for (int i = 0; i < n_sweeps; i++)
        for (int k = 0; k < sweeps[i].keys->n_combinations; k++) free(drawings[i].names[k]);
    free(title);
    free(panels);
    free(drawings);
    return written;
}
