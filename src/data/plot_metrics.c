/* Reading metrics.jsonl.  See plot_metrics.h. */
#include "data/plot_metrics.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/file_io.h"

bool metrics_key_in(const char *key, const char *group) {
    size_t n_bytes = strlen(group);
    return strncmp(key, group, n_bytes) == 0 && (key[n_bytes] == '\0' || key[n_bytes] == '.');
}

void metrics_free(struct Metrics *metrics) {
    for (int i = 0; i < metrics->n_curves; i++) {
        free(metrics->curves[i].key);
        free(metrics->curves[i].iteration);
        free(metrics->curves[i].value);
    }
    free(metrics->curves);
    *metrics = (struct Metrics){0};
}

/* The curve of a key, begun if there is none.  NULL: there are too many. */
static struct MetricsCurve *curve_of(struct Metrics *metrics, const char *key) {
    for (int i = 0; i < metrics->n_curves; i++)
        if (strcmp(metrics->curves[i].key, key) == 0) return &metrics->curves[i];
    if (metrics->n_curves == METRICS_MAX_CURVES) return NULL;
    struct MetricsCurve *curve = &metrics->curves[metrics->n_curves++];
    *curve = (struct MetricsCurve){.key = xstrdup(key)};
    return curve;
}

static void add_point(struct MetricsCurve *curve, double iteration, double value) {
    if (curve->n_points == curve->room) {
        curve->room = curve->room ? 2 * curve->room : 256;
        unsigned long n_bytes = (unsigned long)curve->room * sizeof(double);
        curve->iteration = xrealloc(curve->iteration, n_bytes);
        curve->value = xrealloc(curve->value, n_bytes);
    }
    curve->iteration[curve->n_points] = iteration;
    curve->value[curve->n_points++] = value;
}

/* Forgets what is at or after an iteration that comes again. */
static void rewind_to(struct Metrics *metrics, double iteration) {
    for (int i = 0; i < metrics->n_curves; i++) {
        struct MetricsCurve *curve = &metrics->curves[i];
        while (curve->n_points > 0 && curve->iteration[curve->n_points - 1] >= iteration)
            curve->n_points--;
    }
}

/* Adds the numbers of one object, whose keys begin with `prefix`. */
static bool add_object(struct Metrics *metrics, json_t *object, const char *prefix,
                       double iteration, int depth, struct Error *err) {
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        if (!json_is_number(value) && !json_is_null(value) && !json_is_object(value)) continue;
        if (depth == 0 && strcmp(name, "iteration") == 0) continue;
        char *key = xprintf("%s%s%s", prefix, *prefix ? "." : "", name);
        bool added;
        if (json_is_object(value)) {
            added = depth < METRICS_MAX_DEPTH
                        ? add_object(metrics, value, key, iteration, depth + 1, err)
                        : error_set(err, "objects lie more than %d deep", METRICS_MAX_DEPTH);
        } else {
            struct MetricsCurve *curve = curve_of(metrics, key);
            added = curve || error_set(err, "more than %d different keys", METRICS_MAX_CURVES);
            if (added)
                add_point(curve, iteration, json_is_null(value) ? NAN : json_number_value(value));
        }
        free(key);
        if (!added) return false;
    }
    return true;
}

/* One line without its end.  `last` is the iteration of the line before. */
static bool add_line(struct Metrics *metrics, const char *line, double *last, struct Error *err) {
    json_error_t why;
    json_t *object = json_loads(line, 0, &why);
    if (!object) return error_set(err, "is no JSON: %s", why.text);
    json_t *number = json_object_get(object, "iteration"); /* NULL too if `object` is none */
    bool added;
    if (!json_is_integer(number)) {
        added = error_set(err, "has no whole number \"iteration\"");
    } else {
        double iteration = (double)json_integer_value(number);
        if (iteration <= *last) rewind_to(metrics, iteration);
        *last = iteration;
        added = add_object(metrics, object, "", iteration, 0, err);
    }
    json_decref(object);
    return added;
}

static bool read_lines(struct Metrics *metrics, FILE *file, char *line, struct Error *err) {
    double last = -INFINITY;
    for (int64_t number = 1; fgets(line, METRICS_MAX_LINE_BYTES, file); number++) {
        size_t n_bytes = strlen(line);
        bool whole = n_bytes > 0 && line[n_bytes - 1] == '\n';
        if (!whole && n_bytes == METRICS_MAX_LINE_BYTES - 1)
            return error_set(err, "line %lld is longer than %d bytes", (long long)number,
                             METRICS_MAX_LINE_BYTES - 2);
        if (n_bytes == 0 && !feof(file))
            return error_set(err, "line %lld holds a NUL byte", (long long)number);
        if (line[strspn(line, " \t\r\n")] == '\0') continue;
        if (!whole && feof(file)) break;
        if (!add_line(metrics, line, &last, err))
            return error_prefix(err, "line %lld", (long long)number);
    }
    return !ferror(file) || error_set(err, "cannot be read: %s", strerror(errno));
}

bool metrics_read(struct Metrics *metrics, const char *path, struct Error *err) {
    *metrics = (struct Metrics){0};
    FILE *file = file_open_stream(path, err);
    if (!file) return false;
    metrics->curves = xcalloc(METRICS_MAX_CURVES * sizeof *metrics->curves);
    char *line = xmalloc(METRICS_MAX_LINE_BYTES);
    bool read = read_lines(metrics, file, line, err);
    free(line);
    fclose(file);
    if (read) return true;
    metrics_free(metrics);
    return error_prefix(err, "%s", path);
}
