/* Figures, panels, axes and legends.  See plot.h. */
#include "data/plot.h"

#include <math.h>
#include <stdlib.h>

#include "data/plot_curve.h"

/* All lengths in points. */
static const double MARGIN = 22, PANEL_WIDTH = 460, PANEL_HEIGHT = 270, PANEL_GAP = 26;
static const double TICK_LENGTH = 4, LABEL_GAP = 7, LEGEND_SWATCH = 16, LEGEND_GAP = 14;
enum { X_TICKS = 6, Y_TICKS = 5 };
static const struct Font FIGURE_TITLE = {17, true, {0.13, 0.15, 0.18}};
static const struct Font PANEL_TITLE = {13, true, {0.13, 0.15, 0.18}};
static const struct Font SMALL = {11, false, {0.42, 0.45, 0.50}};

struct Range {
    double low, high; /* low > high: nothing seen */
};

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
        if (plot_shows(values[i], logarithmic)) sorted[n_shown++] = values[i];
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
    bool own_ticks = !of_y && panel->n_x_ticks > 0, airy = of_y || own_ticks;
    if (airy && logarithmic) { /* some air around the curves */
        double air = pow(range.high / range.low, 0.06);
        range = (struct Range){range.low / air, range.high * air};
    } else if (airy) {
        double air = 0.06 * (range.high - range.low);
        range = (struct Range){range.low - air, range.high + air};
    }
    struct Axis axis = axis_make(range.low, range.high, logarithmic, of_y ? Y_TICKS : X_TICKS);
    if (own_ticks) axis_set_ticks(&axis, panel->x_ticks, panel->n_x_ticks);
    return axis;
}

static void draw_curves(cairo_t *cr, const struct PlotPanel *panel, const struct Field *field) {
    cairo_save(cr);
    cairo_rectangle(cr, field->left, field->top - 4, field->width + 4, field->height + 4);
    cairo_clip(cr);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
    for (int s = 0; s < panel->n_series; s++)
        field_draw_curve(cr, field, &panel->series[s], look_of(&panel->series[s], s));
    cairo_restore(cr);
}

/* Horizontal rules at the y ticks, short marks at the x ticks, labels at both. */
static void draw_axes(cairo_t *cr, const struct PlotPanel *panel, const struct Field *field) {
    double bottom = field->top + field->height, right = field->left + field->width;
    for (int i = 0; i < field->y.n_ticks; i++) {
        double y = field_y(field, field->y.ticks[i].value);
        cairo_move_to(cr, field->left, y);
        cairo_line_to(cr, right, y);
        plot_stroke(cr, CANVAS_RULE, 1, 0.8);
        canvas_text(cr, SMALL, field->left - LABEL_GAP, y, ALIGN_RIGHT, field->y.ticks[i].label);
    }
    cairo_move_to(cr, field->left, bottom);
    cairo_line_to(cr, right, bottom);
    plot_stroke(cr, CANVAS_MUTED, 1, 1);
    for (int i = 0; i < field->x.n_ticks; i++) {
        double x = field_x(field, field->x.ticks[i].value);
        cairo_move_to(cr, x, bottom);
        cairo_line_to(cr, x, bottom + TICK_LENGTH);
        plot_stroke(cr, CANVAS_MUTED, 1, 1);
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
        look_draw_swatch(cr, look_of(&panel->series[s], s), x, y, LEGEND_SWATCH);
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

/* Title and legend above, curves below, within width x height from (x, y). */
static void draw_panel(cairo_t *cr, const struct PlotPanel *panel, double x, double y, double width,
                       double height) {
    struct Field field = {.x = choose_axis(panel, false), .y = choose_axis(panel, true)};
    double at = y + 8, right = x + width;
    if (panel->title) {
        struct TextBlock title = canvas_wrap(cr, PANEL_TITLE, panel->title, width, 1);
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
    field.height = y + height - at - (panel->x_label ? 34 : 20);
    if (field.height < 60) field.height = 60; /* a legend of very many lines */
    draw_axes(cr, panel, &field);
    draw_curves(cr, panel, &field);
}

bool plot_write_png(const char *path, const struct PlotFigure *figure, struct Error *err) {
    TMD_CHECK(figure->n_panels > 0 && figure->n_columns > 0, "a figure without panels");
    int columns = figure->n_panels < figure->n_columns ? figure->n_panels : figure->n_columns;
    int rows = (figure->n_panels + columns - 1) / columns;
    double top = MARGIN + (figure->title ? 36 : 0);
    double panel_width = figure->panel_width > 0 ? figure->panel_width : PANEL_WIDTH;
    double panel_height = figure->panel_height > 0 ? figure->panel_height : PANEL_HEIGHT;
    double width = 2 * MARGIN + columns * (panel_width + PANEL_GAP) - PANEL_GAP;
    double height = top + rows * (panel_height + PANEL_GAP) - PANEL_GAP + MARGIN;
    struct Canvas canvas;
    if (!canvas_create(&canvas, width, height, 2, err)) return error_prefix(err, "%s", path);
    if (figure->title) {
        struct TextBlock title =
            canvas_wrap(canvas.cr, FIGURE_TITLE, figure->title, width - 2 * MARGIN, 1);
        canvas_block(canvas.cr, FIGURE_TITLE, MARGIN, MARGIN + 9, ALIGN_LEFT, &title);
        text_block_free(&title);
    }
    for (int i = 0; i < figure->n_panels; i++) {
        double x = MARGIN + (i % columns) * (panel_width + PANEL_GAP);
        double y = top + (int)(i / columns) * (panel_height + PANEL_GAP);
        draw_panel(canvas.cr, &figure->panels[i], x, y, panel_width, panel_height);
    }
    bool written = canvas_write_png(&canvas, path, err);
    canvas_free(&canvas);
    return written;
}
