/* Panels, curves and legends.  See plot.h. */
#include "data/plot.h"

#include <math.h>
#include <stdlib.h>

#include "data/picture_canvas.h"
#include "data/plot_axis.h"

/* All lengths in points. */
static const double MARGIN = 22, PANEL_WIDTH = 460, PANEL_HEIGHT = 270, PANEL_GAP = 26;
static const double TICK_LENGTH = 4, LABEL_GAP = 7, LEGEND_SWATCH = 16, LEGEND_GAP = 14;
enum { X_TICKS = 6, Y_TICKS = 5, MIN_WINDOW = 7 }; /* the running mean's, in points */
static const struct Font FIGURE_TITLE = {17, true, {0.13, 0.15, 0.18}};
static const struct Font PANEL_TITLE = {13, true, {0.13, 0.15, 0.18}};
static const struct Font SMALL = {11, false, {0.42, 0.45, 0.50}};

/* Colours that stay apart for colour-blind readers too (after Okabe and Ito, a little calmer). */
static const struct Rgb COLOURS[] = {
    {0.12, 0.44, 0.68}, {0.84, 0.42, 0.10}, {0.13, 0.58, 0.44}, {0.72, 0.38, 0.60},
    {0.36, 0.36, 0.40}, {0.30, 0.68, 0.86}, {0.83, 0.63, 0.10}, {0.55, 0.33, 0.22},
};
enum { N_COLOURS = sizeof COLOURS / sizeof COLOURS[0] };

/* Where a panel's curves go, and its axes. */
struct Field {
    double left, top, width, height;
    struct Axis x, y;
};

struct Range {
    double low, high; /* low > high: nothing seen */
};

void plot_running_mean(double *mean, const double *y, int64_t n_points, int64_t width) {
    int64_t begin = 0, end = 0, n = 0, reach = width / 2;
    double sum = 0; /* of the n finite y in [begin, end) */
    for (int64_t i = 0; i < n_points; i++) {
        for (; end < n_points && end <= i + reach; end++) {
            if (!isfinite(y[end])) continue;
            sum += y[end];
            n++;
        }
        for (; begin < i - reach; begin++) {
            if (!isfinite(y[begin])) continue;
            sum -= y[begin];
            n--;
        }
        mean[i] = n > 0 ? sum / (double)n : NAN;
    }
}

/* Whether a value can stand on a scale.  Beyond 1e150 ranges and their quotients would overflow. */
static bool shows(double value, bool logarithmic) {
    return isfinite(value) && fabs(value) < 1e150 && (!logarithmic || value > 1e-150);
}

static void include(struct Range *range, double value) {
    range->low = fmin(range->low, value);
    range->high = fmax(range->high, value);
}

static int compare_doubles(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Widens `range` by the values of a series, less the top and bottom 2 % if it is noisy. */
static void include_values(struct Range *range, const double *values, int64_t n, bool logarithmic,
                           bool noisy) {
    double *sorted = xmalloc((unsigned long)n * sizeof *sorted);
    int64_t n_shown = 0;
    for (int64_t i = 0; i < n; i++)
        if (shows(values[i], logarithmic)) sorted[n_shown++] = values[i];
    if (n_shown > 0) {
        qsort(sorted, (size_t)n_shown, sizeof *sorted, compare_doubles);
        int64_t rare = noisy ? n_shown / 50 : 0;
        include(range, sorted[rare]);
        include(range, sorted[n_shown - 1 - rare]);
    }
    free(sorted);
}

static struct Range range_of(const struct PlotPanel *panel, bool of_y, bool logarithmic) {
    struct Range range = {INFINITY, -INFINITY};
    for (int s = 0; s < panel->n_series; s++) {
        const struct PlotSeries *series = &panel->series[s];
        include_values(&range, of_y ? series->y : series->x, series->n_points, logarithmic,
                       of_y && series->style == PLOT_NOISY);
    }
    return range;
}

static bool all_positive(const struct PlotPanel *panel, bool of_y) {
    for (int s = 0; s < panel->n_series; s++) {
        const double *values = of_y ? panel->series[s].y : panel->series[s].x;
        for (int64_t i = 0; i < panel->series[s].n_points; i++)
            if (isfinite(values[i]) && values[i] <= 0) return false;
    }
    return true;
}

static struct Axis choose_axis(const struct PlotPanel *panel, bool of_y) {
    enum PlotScale scale = of_y ? panel->y_scale : panel->x_scale;
    bool logarithmic = scale == PLOT_LOG;
    if (scale == PLOT_AUTO && all_positive(panel, of_y)) {
        struct Range range = range_of(panel, of_y, true);
        logarithmic = range.high > 30 * range.low;
    }
    struct Range range = range_of(panel, of_y, logarithmic);
    if (range.low > range.high) range = logarithmic ? (struct Range){1, 10} : (struct Range){0, 1};
    if (of_y && logarithmic) { /* some air above and below the curves */
        double air = pow(range.high / range.low, 0.06);
        range = (struct Range){range.low / air, range.high * air};
    } else if (of_y) {
        double air = 0.06 * (range.high - range.low);
        range = (struct Range){range.low - air, range.high + air};
    }
    return axis_make(range.low, range.high, logarithmic, of_y ? Y_TICKS : X_TICKS);
}

static double place_x(const struct Field *field, double value) {
    return field->left + field->width * axis_place(&field->x, value);
}

static double place_y(const struct Field *field, double value) {
    return field->top + field->height * (1 - axis_place(&field->y, value));
}

/* The path of a curve.  Points closer than a quarter of a point to the last one drawn are passed
 * over: a million of them would look the same and take a second. */
static void trace(cairo_t *cr, const struct Field *field, const double *x, const double *y,
                  int64_t n) {
    bool down = false;
    double last_x = 0, last_y = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!shows(x[i], field->x.logarithmic) || !shows(y[i], field->y.logarithmic)) {
            down = false;
            continue;
        }
        /* Cairo counts in 1/256 of 24 bits: points far beyond the field are brought near. */
        double px = place_x(field, x[i]), py = place_y(field, y[i]);
        py = fmin(fmax(py, field->top - 1000), field->top + field->height + 1000);
        if (down && hypot(px - last_x, py - last_y) < 0.25 && i < n - 1) continue;
        if (down)
            cairo_line_to(cr, px, py);
        else
            cairo_move_to(cr, px, py);
        if (!down) cairo_line_to(cr, px, py); /* a lone point shows as a dot */
        down = true;
        last_x = px;
        last_y = py;
    }
}

static void stroke(cairo_t *cr, struct Rgb colour, double alpha, double width) {
    cairo_set_source_rgba(cr, colour.r, colour.g, colour.b, alpha);
    cairo_set_line_width(cr, width);
    cairo_stroke(cr);
}

static void draw_series(cairo_t *cr, const struct Field *field, const struct PlotSeries *series,
                        struct Rgb colour) {
    const int64_t n = series->n_points;
    trace(cr, field, series->x, series->y, n);
    if (series->style != PLOT_NOISY) {
        stroke(cr, colour, 1, 1.7);
    } else {
        stroke(cr, colour, 0.22, 0.8);
        double *mean = xmalloc((unsigned long)n * sizeof *mean);
        plot_running_mean(mean, series->y, n, n / 20 > MIN_WINDOW ? n / 20 : MIN_WINDOW);
        trace(cr, field, series->x, mean, n);
        stroke(cr, colour, 1, 1.7);
        free(mean);
    }
    for (int64_t i = 0; series->style == PLOT_MARKED && i < n; i++) {
        if (!shows(series->x[i], field->x.logarithmic) ||
            !shows(series->y[i], field->y.logarithmic))
            continue;
        canvas_set_colour(cr, colour);
        cairo_arc(cr, place_x(field, series->x[i]), place_y(field, series->y[i]), 3, 0, 2 * M_PI);
        cairo_fill(cr);
    }
}

static void draw_curves(cairo_t *cr, const struct PlotPanel *panel, const struct Field *field) {
    cairo_save(cr);
    cairo_rectangle(cr, field->left, field->top - 4, field->width + 4, field->height + 4);
    cairo_clip(cr);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
    for (int s = 0; s < panel->n_series; s++)
        draw_series(cr, field, &panel->series[s], COLOURS[s % N_COLOURS]);
    cairo_restore(cr);
}

/* Horizontal rules at the y ticks, short marks at the x ticks, labels at both. */
static void draw_axes(cairo_t *cr, const struct PlotPanel *panel, const struct Field *field) {
    double bottom = field->top + field->height, right = field->left + field->width;
    for (int i = 0; i < field->y.n_ticks; i++) {
        double y = place_y(field, field->y.ticks[i].value);
        cairo_move_to(cr, field->left, y);
        cairo_line_to(cr, right, y);
        stroke(cr, CANVAS_RULE, 1, 0.8);
        canvas_text(cr, SMALL, field->left - LABEL_GAP, y, ALIGN_RIGHT, field->y.ticks[i].label);
    }
    cairo_move_to(cr, field->left, bottom);
    cairo_line_to(cr, right, bottom);
    stroke(cr, CANVAS_MUTED, 1, 1);
    for (int i = 0; i < field->x.n_ticks; i++) {
        double x = place_x(field, field->x.ticks[i].value);
        cairo_move_to(cr, x, bottom);
        cairo_line_to(cr, x, bottom + TICK_LENGTH);
        stroke(cr, CANVAS_MUTED, 1, 1);
        canvas_text(cr, SMALL, x, bottom + TICK_LENGTH + LABEL_GAP + 2, ALIGN_CENTRE,
                    field->x.ticks[i].label);
    }
    if (panel->x_label)
        canvas_text(cr, SMALL, right, bottom + TICK_LENGTH + LABEL_GAP + 18, ALIGN_RIGHT,
                    panel->x_label);
}

/* Swatches and names from (left, y) on, in rows that end before `right`.  Returns the y of the last
 * row. */
static double draw_legend(cairo_t *cr, const struct PlotPanel *panel, double left, double right,
                          double y) {
    double x = left;
    for (int s = 0; s < panel->n_series; s++) {
        double room = right - left - LEGEND_SWATCH - 5;
        struct TextBlock name = canvas_wrap(cr, SMALL, panel->series[s].name, room, 1);
        const char *text = name.n_lines > 0 ? name.lines[0] : "";
        double width = LEGEND_SWATCH + 5 + canvas_text_width(cr, SMALL, text);
        if (x > left && x + width > right) {
            x = left;
            y += canvas_line_height(SMALL) + 2;
        }
        cairo_move_to(cr, x, y);
        cairo_line_to(cr, x + LEGEND_SWATCH, y);
        stroke(cr, COLOURS[s % N_COLOURS], 1, 2.5);
        canvas_text(cr, SMALL, x + LEGEND_SWATCH + 5, y, ALIGN_LEFT, text);
        x += width + LEGEND_GAP;
        text_block_free(&name);
    }
    return y;
}

static double widest_label(cairo_t *cr, const struct Axis *axis) {
    double widest = 0;
    for (int i = 0; i < axis->n_ticks; i++)
        widest = fmax(widest, canvas_text_width(cr, SMALL, axis->ticks[i].label));
    return widest;
}

/* Title and legend above, curves below, within PANEL_WIDTH x PANEL_HEIGHT from (x, y). */
static void draw_panel(cairo_t *cr, const struct PlotPanel *panel, double x, double y) {
    struct Field field = {.x = choose_axis(panel, false), .y = choose_axis(panel, true)};
    double at = y + 8, right = x + PANEL_WIDTH;
    if (panel->title) {
        struct TextBlock title = canvas_wrap(cr, PANEL_TITLE, panel->title, PANEL_WIDTH, 1);
        canvas_block(cr, PANEL_TITLE, x, at, ALIGN_LEFT, &title);
        text_block_free(&title);
        at += 20;
    }
    at = draw_legend(cr, panel, x, right, at) + 18;
    if (panel->y_label) {
        canvas_text(cr, SMALL, x, at, ALIGN_LEFT, panel->y_label);
        at += 12;
    }
    field.left = x + widest_label(cr, &field.y) + LABEL_GAP;
    field.top = at;
    field.width = right - field.left - 12; /* half a label at the right end */
    field.height = y + PANEL_HEIGHT - at - (panel->x_label ? 34 : 20);
    if (field.height < 60) field.height = 60; /* a legend of very many lines */
    draw_axes(cr, panel, &field);
    draw_curves(cr, panel, &field);
}

bool plot_write_png(const char *path, const struct PlotFigure *figure, struct Error *err) {
    TMD_CHECK(figure->n_panels > 0 && figure->n_columns > 0, "a figure without panels");
    int columns = figure->n_panels < figure->n_columns ? figure->n_panels : figure->n_columns;
    int rows = (figure->n_panels + columns - 1) / columns;
    double top = MARGIN + (figure->title ? 36 : 0);
    double width = 2 * MARGIN + columns * (PANEL_WIDTH + PANEL_GAP) - PANEL_GAP;
    double height = top + rows * (PANEL_HEIGHT + PANEL_GAP) - PANEL_GAP + MARGIN;
    struct Canvas canvas;
    if (!canvas_create(&canvas, width, height, 2, err)) return error_prefix(err, "%s", path);
    if (figure->title) {
        struct TextBlock title =
            canvas_wrap(canvas.cr, FIGURE_TITLE, figure->title, width - 2 * MARGIN, 1);
        canvas_block(canvas.cr, FIGURE_TITLE, MARGIN, MARGIN + 9, ALIGN_LEFT, &title);
        text_block_free(&title);
    }
    for (int i = 0; i < figure->n_panels; i++)
        draw_panel(canvas.cr, &figure->panels[i],
                   MARGIN + (i % columns) * (PANEL_WIDTH + PANEL_GAP),
                   top + (int)(i / columns) * (PANEL_HEIGHT + PANEL_GAP));
    bool written = canvas_write_png(&canvas, path, err);
    canvas_free(&canvas);
    return written;
}
