/* Round ticks, linear and logarithmic.  See plot_axis.h. */
#include "data/plot_axis.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "error.h"

void axis_label(double value, char label[AXIS_LABEL_BYTES]) {
    double size = fabs(value);
    if (size >= 1e6 && size < 1e9)
        snprintf(label, AXIS_LABEL_BYTES, "%.6gM", value / 1e6);
    else if (size >= 1e4 && size < 1e6)
        snprintf(label, AXIS_LABEL_BYTES, "%.6gk", value / 1e3);
    else
        snprintf(label, AXIS_LABEL_BYTES, "%.6g", value);
}

static void add_tick(struct Axis *axis, double value) {
    if (axis->n_ticks == AXIS_MAX_TICKS) return;
    struct AxisTick *tick = &axis->ticks[axis->n_ticks++];
    tick->value = value;
    axis_label(value, tick->label);
}

/* The nearest to `step` of 1, 2, 5 times a power of ten, as ratios go. */
static double round_step(double step) {
    double power = pow(10, floor(log10(step))), digits = step / power;
    if (digits < sqrt(1 * 2)) return power;
    if (digits < sqrt(2 * 5)) return 2 * power;
    if (digits < sqrt(5 * 10)) return 5 * power;
    return 10 * power;
}

static void add_linear_ticks(struct Axis *axis, int wanted) {
    double step = round_step((axis->high - axis->low) / wanted);
    double first = ceil(axis->low / step - 1e-9);
    for (int i = 0; i < AXIS_MAX_TICKS; i++) {
        double value = (first + i) * step;
        if (value > axis->high + 1e-9 * step) return;
        add_tick(axis, fabs(value) < 1e-9 * step ? 0 : value);
    }
}

/* Every `stride`-th power of ten, and 2 and 5 times each where less than two decades are shown. */
static void add_log_ticks(struct Axis *axis, int wanted) {
    double decades = log10(axis->high) - log10(axis->low);
    int stride = (int)fmax(1, ceil(decades / wanted));
    double first = floor(log10(axis->low));
    for (int i = 0; i <= (int)decades + 1; i += stride) {
        static const double WITHIN[3] = {1, 2, 5};
        for (int j = 0; j < (decades < 2 ? 3 : 1); j++) {
            double value = WITHIN[j] * pow(10, first + i);
            if (value >= axis->low * (1 - 1e-9) && value <= axis->high * (1 + 1e-9))
                add_tick(axis, value);
        }
    }
}

struct Axis axis_make(double low, double high, bool logarithmic, int wanted) {
    TMD_CHECK(isfinite(low) && isfinite(high) && low <= high && (!logarithmic || low > 0),
              "an axis from %g to %g", low, high);
    if (logarithmic && high / low < 1.01) {
        low = fmax(low / 1.1, DBL_MIN);
        high = fmin(high * 1.1, DBL_MAX);
    }
    /* So far from zero that neighbouring doubles are wider apart than ticks would be: widen. */
    double least = 1e-6 * fmax(fabs(low), fabs(high));
    if (!logarithmic && high - low <= least) {
        double pad = least > 0 ? 5e4 * least : 1;
        low = fmax(low - pad, -DBL_MAX / 4);
        high = fmin(high + pad, DBL_MAX / 4);
    }
    struct Axis axis = {.low = low, .high = high, .logarithmic = logarithmic};
    if (logarithmic) add_log_ticks(&axis, wanted);
    /* Within one step of 1, 2, 5 a logarithmic axis is as good as linear, and round numbers fit. */
    if (axis.n_ticks < 2) {
        axis.n_ticks = 0;
        add_linear_ticks(&axis, wanted);
    }
    return axis;
}

void axis_set_ticks(struct Axis *axis, const double *values, int n) {
    static const double LEAST_GAP = 1.0 / 30.0;
    double free_from = -1;
    axis->n_ticks = 0;
    for (int i = 0; i < n; i++) {
        double place = axis_place(axis, values[i]);
        if (place < free_from) continue;
        add_tick(axis, values[i]);
        free_from = place + LEAST_GAP;
    }
}

double axis_place(const struct Axis *axis, double value) {
    if (axis->logarithmic)
        return (log(value) - log(axis->low)) / (log(axis->high) - log(axis->low));
    return (value - axis->low) / (axis->high - axis->low);
}
