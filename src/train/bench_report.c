/* The rows of a benchmark, on the terminal and as JSON. */
#include <errno.h>
#include <jansson.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/bench.h"
#include "train/phase_timer.h"

struct BenchReport {
    const struct Backend *be;
    double seconds, peak;
    bool best;
    json_t *root, *rows; /* rows: those of the present section, borrowed */
};

struct BenchReport *bench_report_create(const struct Backend *be, double seconds, bool best) {
    struct BenchReport *report = xcalloc(sizeof *report);
    report->be = be;
    report->seconds = seconds;
    report->best = best;
    report->root = json_pack("{s:s, s:s, s:i, s:s, s:f, s:[]}", "backend", be->name, "precision",
                             dtype_name(be->act_dtype), "threads", omp_get_max_threads(), "of",
                             best ? "best" : "median", "peak_flops", 0.0, "sections");
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

void bench_section(struct BenchReport *report, const char *format, ...) {
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    json_t *section = json_pack("{s:s, s:[]}", "name", name, "rows");
    TMD_CHECK(section, "a section's name is no UTF-8: %s", name);
    report->rows = json_object_get(section, "rows");
    json_array_append_new(json_object_get(report->root, "sections"), section);
    printf("\n%s\n  %-36s %7s %11s %9s %7s %8s\n", name, "", "calls", "ms", "GFLOP/s", "of peak",
           "GB/s");
}

void bench_row(struct BenchReport *report, const char *name, struct OpTally t) {
    json_array_append_new(report->rows, json_pack("{s:s, s:I, s:f, s:f, s:f}", "name", name,
                                                  "calls", (json_int_t)t.calls, "seconds",
                                                  t.seconds, "flops", t.flops, "bytes", t.bytes));
    printf("  %-36s %7lld %11.3f", name, (long long)t.calls, 1e3 * t.seconds);
    if (t.flops > 0.0)
        printf(" %9.1f", 1e-9 * t.flops / t.seconds);
    else
        printf(" %9s", "");
    if (t.flops > 0.0 && report->peak > 0.0)
        printf(" %5.1f %%", 100.0 * t.flops / t.seconds / report->peak);
    else
        printf(" %7s", "");
    if (t.bytes > 0.0) printf(" %8.1f", 1e-9 * t.bytes / t.seconds);
    printf("\n");
    fflush(stdout);
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

static double choose(bool best, double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return values[best ? 0 : n / 2];
}

static double time_runs(const struct BenchReport *report, bool best, void (*run)(void *context),
                        void *context) {
    enum { AT_LEAST = 3, AT_MOST = 1000 };
    double times[AT_MOST], begin = wall_seconds();
    int n = 0;
    run(context);
    report->be->finish(report->be);
    for (double now = begin; n < AT_MOST && (n < AT_LEAST || now - begin < report->seconds); n++) {
        double start = wall_seconds();
        run(context);
        report->be->finish(report->be);
        now = wall_seconds();
        times[n] = now - start;
    }
    return choose(best, times, n);
}

double bench_choose(const struct BenchReport *report, double *values, int n) {
    return choose(report->best, values, n);
}

double bench_time(const struct BenchReport *report, void (*run)(void *context), void *context) {
    return time_runs(report, report->best, run, context);
}

double bench_least_time(const struct BenchReport *report, void (*run)(void *context),
                        void *context) {
    return time_runs(report, true, run, context);
}
