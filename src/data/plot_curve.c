/* Curves, their marks and colours.  See plot_curve.h. */
#include "data/plot_curve.h"

#include <math.h>
#include <stdlib.h>

enum { MIN_WINDOW = 7 }; /* the running mean's, in points of the curve */

/* Colours that stay apart for colour-blind readers too (after Okabe and Ito, a little calmer). */
static const struct Rgb COLOURS[] = {
    {0.12, 0.44, 0.68}, {0.84, 0.42, 0.10}, {0.13, 0.58, 0.44}, {0.72, 0.38, 0.60},
    {0.36, 0.36, 0.40}, {0.30, 0.68, 0.86}, {0.83, 0.63, 0.10}, {0.55, 0.33, 0.22},
};
static const struct Rgb WHITE = {1, 1, 1};
enum { N_COLOURS = sizeof COLOURS / sizeof COLOURS[0] };

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

/* Beyond 1e150 ranges and their quotients would overflow. */
bool plot_shows(double value, bool logarithmic) {
    return isfinite(value) && fabs(value) < 1e150 && (!logarithmic || value > 1e-150);
}

static bool shows_point(const struct Field *field, double x, double y) {
    return plot_shows(x, field->x.logarithmic) && plot_shows(y, field->y.logarithmic);
}

double field_x(const struct Field *field, double value) {
    return field->left + field->width * axis_place(&field->x, value);
}

double field_y(const struct Field *field, double value) {
    return field->top + field->height * (1 - axis_place(&field->y, value));
}

/* The path of a curve.  Points closer than a quarter of a point to the last one drawn are passed
 * over: a million of them would look the same and take a second. */
static void trace(cairo_t *cr, const struct Field *field, const double *x, const double *y,
                  int64_t n) {
    bool down = false;
    double last_x = 0, last_y = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!shows_point(field, x[i], y[i])) {
            down = false;
            continue;
        }
        /* Cairo counts in 1/256 of 24 bits: points far beyond the field are brought near. */
        double px = field_x(field, x[i]), py = field_y(field, y[i]);
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

void plot_stroke(cairo_t *cr, struct Rgb colour, double alpha, double width) {
    cairo_set_source_rgba(cr, colour.r, colour.g, colour.b, alpha);
    cairo_set_line_width(cr, width);
    cairo_stroke(cr);
}

/* Shapes of marks, the last of which is a ring. */
enum { N_SHAPES = 4, RING = N_SHAPES };

struct Look look_of(const struct PlotSeries *series, int s) {
    enum PlotStyle style = series->style;
    bool grey = style == PLOT_DASHED || style == PLOT_RINGS;
    return (struct Look){.style = style,
                         .colour = grey ? CANVAS_MUTED : COLOURS[s % N_COLOURS],
                         .shape = style == PLOT_RINGS ? RING : s / N_COLOURS % N_SHAPES};
}

/* Strokes the present path as a line of this look. */
static void stroke_line(cairo_t *cr, struct Look look, double width) {
    static const double DASHES[2] = {5, 4};
    bool dashed = look.style == PLOT_DASHED;
    cairo_set_dash(cr, DASHES, dashed ? 2 : 0, 0);
    plot_stroke(cr, look.colour, 1, dashed ? 1.2 : width);
    cairo_set_dash(cr, NULL, 0, 0);
}

static void draw_mark(cairo_t *cr, double x, double y, struct Look look) {
    static const struct {
        int n_corners; /* 0: round */
        double radius, first_angle;
    } SHAPES[] = {
        {0, 3, 0}, {4, 3.8, M_PI / 4}, {3, 4.2, -M_PI / 2}, {4, 4, 0}, [RING] = {0, 3.6, 0}};
    const int n = SHAPES[look.shape].n_corners;
    const double radius = SHAPES[look.shape].radius;
    cairo_new_path(cr);
    if (n == 0) cairo_arc(cr, x, y, radius, 0, 2 * M_PI);
    for (int i = 0; i < n; i++) {
        double angle = SHAPES[look.shape].first_angle + 2 * M_PI * i / n;
        cairo_line_to(cr, x + radius * cos(angle), y + radius * sin(angle));
    }
    cairo_close_path(cr);
    canvas_set_colour(cr, look.shape == RING ? WHITE : look.colour);
    cairo_fill_preserve(cr);
    if (look.shape == RING) plot_stroke(cr, look.colour, 1, 1.3);
    cairo_new_path(cr);
}

static bool has_line(enum PlotStyle style) {
    return style != PLOT_RINGS;
}

static bool has_marks(enum PlotStyle style) {
    return style == PLOT_MARKED || style == PLOT_RINGS;
}

static void draw_noisy(cairo_t *cr, const struct Field *field, const struct PlotSeries *series,
                       struct Rgb colour) {
    const int64_t n = series->n_points;
    trace(cr, field, series->x, series->y, n);
    plot_stroke(cr, colour, 0.22, 0.8);
    double *mean = xmalloc((unsigned long)n * sizeof *mean);
    plot_running_mean(mean, series->y, n, n / 20 > MIN_WINDOW ? n / 20 : MIN_WINDOW);
    trace(cr, field, series->x, mean, n);
    plot_stroke(cr, colour, 1, 1.7);
    free(mean);
}

void field_draw_curve(cairo_t *cr, const struct Field *field, const struct PlotSeries *series,
                      struct Look look) {
    if (look.style == PLOT_NOISY) {
        draw_noisy(cr, field, series, look.colour);
        return;
    }
    if (has_line(look.style)) {
        trace(cr, field, series->x, series->y, series->n_points);
        stroke_line(cr, look, 1.7);
    }
    for (int64_t i = 0; has_marks(look.style) && i < series->n_points; i++)
        if (shows_point(field, series->x[i], series->y[i]))
            draw_mark(cr, field_x(field, series->x[i]), field_y(field, series->y[i]), look);
}

void look_draw_swatch(cairo_t *cr, struct Look look, double x, double y, double width) {
    if (has_line(look.style)) {
        cairo_move_to(cr, x, y);
        cairo_line_to(cr, x + width, y);
        stroke_line(cr, look, 2.5);
    }
    if (has_marks(look.style)) draw_mark(cr, x + width / 2, y, look);
}
