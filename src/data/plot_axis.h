/* One axis of a plot: its range, and ticks at round numbers. */
#ifndef TMD_DATA_PLOT_AXIS_H
#define TMD_DATA_PLOT_AXIS_H

#include <stdbool.h>

enum { AXIS_MAX_TICKS = 24, AXIS_LABEL_BYTES = 24 };

struct AxisTick {
    double value;
    char label[AXIS_LABEL_BYTES];
};

struct Axis {
    double low, high; /* low < high; both positive if logarithmic */
    bool logarithmic;
    int n_ticks;
    struct AxisTick ticks[AXIS_MAX_TICKS];
};

/* An axis over [low, high] with about `wanted` (2 .. 10) ticks: multiples of 1, 2 or 5 times a
 * power of ten, or powers of ten (with their multiples by 2 and 5 where the range is short).  A
 * range that is empty is widened; logarithmic needs low > 0. */
struct Axis axis_make(double low, double high, bool logarithmic, int wanted);

/* Moves the ticks to `values` [n], increasing and in the axis's range, less those within a 30th of
 * the axis behind the tick before. */
void axis_set_ticks(struct Axis *axis, const double *values, int n);

/* Where a value lies: 0 at `low`, 1 at `high`. */
double axis_place(const struct Axis *axis, double value);

/* A number as people write it on axes: "0.25", "1500", "20k", "3M", "1e-7". */
void axis_label(double value, char label[AXIS_LABEL_BYTES]);

#endif
