/* The rows of a benchmark, on the terminal and as JSON. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend_open.h"
#include "train/bench.h"

struct BenchReport {
    double seconds, peak, bandwidth, nominal_peak;
    bool best, has_goals;   /* the goals are those of a CUDA device */
    json_t *root, *section; /* section: the present one, borrowed */
};

struct BenchReport *bench_report_create(const struct Backend *be, double seconds, bool best,
                                        double nominal_peak) {
    struct BenchReport *report = xcalloc(sizeof *report);
    report->seconds = seconds;
    report->best = best;
    report->has_goals = strcmp(be->name, "cpu") != 0;
    report->nominal_peak = nominal_peak;
    char device[512];
    be->describe(be, device, sizeof device);
    printf("%s, %s\n", device, dtype_name(be->act_dtype));
    report->root =
        json_pack("{s:s, s:s, s:s, s:i, s:s, s:f, s:[]}", "device", device, "backend", be->name,
                  "precision", dtype_name(be->act_dtype), "threads", omp_get_max_threads(), "of",
                  best ? "best" : "median", "nominal_peak_flops", nominal_peak, "sections");
    TMD_CHECK(report->root, "out of memory");
    return report;
}

void bench_report_destroy(struct BenchReport *report) {
    json_decref(report->root);
    free(report);
}

double bench_report_seconds(const struct BenchReport *report) {
    return report->seconds;
}

void bench_report_set_peak(struct BenchReport *report, double flops_per_second) {
    report->peak = flops_per_second;
    json_object_set_new(report->root, "peak_flops", json_real(flops_per_second));
}

void bench_report_set_bandwidth(struct BenchReport *report, double bytes_per_second) {
    report->bandwidth = bytes_per_second;
    json_object_set_new(report->root, "bandwidth", json_real(bytes_per_second));
}

/* Adds `item` to a list of the present section. */
static void add_to(struct BenchReport *report, const char *list, json_t *item) {
    TMD_CHECK(item && report->section, "a line of the benchmark is no UTF-8, or has no section");
    json_array_append_new(json_object_get(report->section, list), item);
}

void bench_section(struct BenchReport *report, const char *format, ...) {
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    report->section = json_pack("{s:s, s:[], s:[], s:[]}", "name", name, "rows", "ratios", "notes");
    TMD_CHECK(report->section, "a section's name is no UTF-8: %s", name);
    json_array_append_new(json_object_get(report->root, "sections"), report->section);
    printf("\n%s\n  %-46s %7s %11s %10s %8s %8s %8s\n", name, "", "calls", "ms", "GFLOP/s",
           "of peak", "GB/s", "of floor");
}

double bench_floor_share(const struct BenchReport *report, struct OpTally t) {
    double floor = 0.0;
    if (report->peak > 0.0) floor = t.flops / report->peak;
    if (report->bandwidth > 0.0) floor = fmax(floor, t.bytes / report->bandwidth);
    return floor / t.seconds;
}

/* A column that is empty where there is nothing to tell. */
static void print_column(double value, const char *format, int width) {
    if (value > 0.0)
        printf(format, value);
    else
        printf("%*s", width, "");
}

void bench_row(struct BenchReport *report, const char *name, struct OpTally t) {
    double share = bench_floor_share(report, t);
    add_to(report, "rows",
           json_pack("{s:s, s:I, s:f, s:f, s:f, s:f}", "name", name, "calls", (json_int_t)t.calls,
                     "seconds", t.seconds, "flops", t.flops, "bytes", t.bytes, "floor_share",
                     share));
    printf("  %-46s %7lld %11.3f", name, (long long)t.calls, 1e3 * t.seconds);
    print_column(1e-9 * t.flops / t.seconds, " %10.1f", 11);
    print_column(report->peak > 0.0 ? 100.0 * t.flops / t.seconds / report->peak : 0.0, " %6.1f %%",
                 9);
    print_column(1e-9 * t.bytes / t.seconds, " %8.1f", 9);
    print_column(100.0 * share, " %6.1f %%", 9);
    printf("\n");
    fflush(stdout);
}

void bench_ratio(struct BenchReport *report, const char *name, double ratio, enum BenchGoal goal,
                 double bound) {
    bool least = goal == BENCH_AT_LEAST, met = least ? ratio >= bound : ratio <= bound;
    add_to(report, "ratios",
           json_pack("{s:s, s:f, s:f}", "name", name, "ratio", ratio,
                     least ? "at_least" : "at_most", bound));
    printf("  %-62s %8.3f", name, ratio);
    if (report->has_goals)
        printf("   wanted: at %s %.2f%s", least ? "least" : "most", bound, met ? "" : "  MISSED");
    printf("\n");
    fflush(stdout);
}

void bench_utilisation(struct BenchReport *report, double model_flops, double seconds,
                       double goal) {
    char name[96];
    bool nominal = report->nominal_peak > 0.0;
    double peak = nominal ? report->nominal_peak : report->peak;
    snprintf(name, sizeof name, "MFU, of %.1f TFLOP/s %s", 1e-12 * peak,
             nominal ? "nominal" : "measured");
    bench_ratio(report, name, model_flops / seconds / peak, BENCH_AT_LEAST, goal);
}

void bench_note(struct BenchReport *report, const char *text) {
    add_to(report, "notes", json_string(text));
    printf("  %s\n", text);
}

bool bench_report_write(const struct BenchReport *report, const char *path, struct Error *err) {
    char *partial = xprintf("%s.partial", path);
    bool ok =
        json_dump_file(report->root, partial, JSON_INDENT(1)) == 0 && rename(partial, path) == 0;
    if (!ok) error_set(err, "%s: cannot write: %s", partial, strerror(errno));
    free(partial);
    return ok;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_choose(const struct BenchReport *report, double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return values[report->best ? 0 : n / 2];
}
