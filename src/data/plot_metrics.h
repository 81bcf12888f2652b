/* The curves of a run, from its metrics.jsonl: one JSON object a line, each with the whole number
 * "iteration".  Every other number is a point of the curve of its key; objects within objects join
 * their keys with a dot ({"loss": {"vsd": 1}} is the same as {"loss.vsd": 1}); null is a value that
 * was not finite; everything else is passed over.
 *
 * A run that went on from a checkpoint repeats iterations: the later line counts.  A last line that
 * was cut off is passed over. */
#ifndef TMD_DATA_PLOT_METRICS_H
#define TMD_DATA_PLOT_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum { METRICS_MAX_CURVES = 512, METRICS_MAX_LINE_BYTES = 1 << 20, METRICS_MAX_DEPTH = 8 };

struct MetricsCurve {
    char *key;
    int64_t n_points, room;
    double *iteration, *value; /* [n_points]; iterations ascend */
};

struct Metrics {
    int n_curves;
    struct MetricsCurve *curves; /* in the order in which their keys first came */
};

/* Errors name file and line.  A file without any line gives no curves. */
bool metrics_read(struct Metrics *metrics, const char *path, struct Error *err);
void metrics_free(struct Metrics *metrics);

/* Whether `key` is `group` itself or "group." and more. */
bool metrics_key_in(const char *key, const char *group);

#endif
