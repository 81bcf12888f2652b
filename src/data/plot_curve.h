/* One curve of a plot: where its points lie in a panel, how it looks there and in the legend. */
#ifndef TMD_DATA_PLOT_CURVE_H
#define TMD_DATA_PLOT_CURVE_H

#include "data/picture_canvas.h"
#include "data/plot.h"
#include "data/plot_axis.h"

/* Where a panel's curves go, and its axes. */
struct Field {
    double left, top, width, height;
    struct Axis x, y;
};

/* Where a value lies on the page. */
double field_x(const struct Field *field, double value);
double field_y(const struct Field *field, double value);

/* Whether a value can stand on a scale. */
bool plot_shows(double value, bool logarithmic);

/* How a series looks. */
struct Look {
    enum PlotStyle style;
    struct Rgb colour;
    int shape; /* of its marks: dots, then squares, triangles, diamonds as colours repeat */
};

/* Of series number s of a panel. */
struct Look look_of(const struct PlotSeries *series, int s);

void field_draw_curve(cairo_t *cr, const struct Field *field, const struct PlotSeries *series,
                      struct Look look);

/* What stands for it in the legend, `width` wide from (x, y) on. */
void look_draw_swatch(cairo_t *cr, struct Look look, double x, double y, double width);

/* Strokes the present path. */
void plot_stroke(cairo_t *cr, struct Rgb colour, double alpha, double width);

#endif
