/* Line plots as PNG: panels of curves over a common kind of axis, for losses and for scaling. */
#ifndef TMD_DATA_PLOT_H
#define TMD_DATA_PLOT_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum PlotStyle {
    PLOT_NOISY,  /* a faint line, and its running mean over a twentieth of the points */
    PLOT_LINE,   /* a line */
    PLOT_MARKED, /* a line with a dot at every point, for few points */
    PLOT_DASHED, /* a grey line of dashes, for what curves are held against */
    PLOT_RINGS,  /* no line, a hollow ring at every point, over dots of series before it */
};

/* Points [n_points] in order of x.  A point that is not finite, or not positive on a logarithmic
 * axis, is left out and interrupts the line. */
struct PlotSeries {
    const char *name; /* for the legend */
    int64_t n_points;
    const double *x, *y;
    enum PlotStyle style;
};

enum PlotScale {
    PLOT_LINEAR,
    PLOT_LOG,
    PLOT_AUTO, /* logarithmic where all is positive and spans more than a factor of 30 */
};

struct PlotPanel {
    const char *title, *x_label, *y_label; /* NULL: none */
    enum PlotScale x_scale, y_scale;
    int n_x_ticks;         /* 0: at round numbers */
    const double *x_ticks; /* [n_x_ticks], increasing; those too close to print are left out */
    int n_series;
    const struct PlotSeries *series; /* [n_series] */
};

struct PlotFigure {
    const char *title; /* NULL: none */
    int n_panels, n_columns;
    double panel_width, panel_height; /* in points of 1/96 inch; 0: 460 and 270 */
    const struct PlotPanel *panels;   /* [n_panels], row by row */
};

/* Draws and writes the figure.  The y axis of noisy series leaves out their rarest extremes; what
 * lies beyond is clipped. */
bool plot_write_png(const char *path, const struct PlotFigure *figure, struct Error *err);

/* mean[i]: the mean of the finite y within half a window of `width` points on either side of i; NaN
 * where there is none. */
void plot_running_mean(double *mean, const double *y, int64_t n_points, int64_t width);

#endif
