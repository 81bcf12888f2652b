/* Plots: round ticks, running means, metrics files with all that can be wrong, and the picture. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/cmd_plot.h"
#include "data/plot.h"
#include "data/plot_axis.h"
#include "data/plot_metrics.h"
#include "picture_probe.h"
#include "scratch.h"

static void assert_ticks(double low, double high, bool logarithmic, int wanted,
                         const char *expected) {
    char labels[AXIS_MAX_TICKS * AXIS_LABEL_BYTES] = "";
    struct Axis axis = axis_make(low, high, logarithmic, wanted);
    for (int i = 0; i < axis.n_ticks; i++) {
        double place = axis_place(&axis, axis.ticks[i].value);
        assert_true(place > -1e-6 && place < 1 + 1e-6);
        strcat(labels, i ? " " : "");
        strcat(labels, axis.ticks[i].label);
    }
    assert_string_equal(labels, expected);
}

static void test_ticks_are_round(void **state) {
    (void)state;
    assert_ticks(0, 1, false, 5, "0 0.2 0.4 0.6 0.8 1");
    assert_ticks(-0.31, 0.74, false, 5, "-0.2 0 0.2 0.4 0.6");
    assert_ticks(0, 1500, false, 6, "0 200 400 600 800 1000 1200 1400");
    assert_ticks(0, 2000, false, 5, "0 500 1000 1500 2000");
    assert_ticks(0, 60000, false, 6, "0 10k 20k 30k 40k 50k 60k");
    assert_ticks(0, 4e6, false, 4, "0 1M 2M 3M 4M");
    assert_ticks(1e-7, 9e-7, false, 5, "2e-07 4e-07 6e-07 8e-07");
    assert_ticks(0.02, 3, true, 5, "0.1 1");
    assert_ticks(0.1, 5, true, 5, "0.1 0.2 0.5 1 2 5");
    assert_ticks(1e-12, 1, true, 4, "1e-12 1e-09 1e-06 0.001 1");
    assert_ticks(3, 4, true, 5, "3 3.2 3.4 3.6 3.8 4");
}

static void test_axes_of_any_range_have_ticks(void **state) {
    (void)state;
    static const double ENDS[][2] = {
        {0, 0},   {5, 5},         {-1e300, 1e300}, {1e-300, 1e-300}, {1e9, 1e9 + 1e-6},
        {-7, -7}, {1e-300, 1e300}};
    for (int i = 0; i < 7; i++) {
        struct Axis axis = axis_make(ENDS[i][0], ENDS[i][1], false, 5);
        assert_true(axis.low < axis.high && axis.n_ticks >= 1 && axis.n_ticks < AXIS_MAX_TICKS);
        if (ENDS[i][0] <= 0) continue;
        axis = axis_make(ENDS[i][0], ENDS[i][1], true, 5);
        assert_true(axis.low < axis.high && axis.n_ticks >= 1 && axis.n_ticks < AXIS_MAX_TICKS);
    }
}

/* 4 is too close behind 3.9. */
static void test_ticks_of_ones_own(void **state) {
    (void)state;
    const double values[5] = {1, 3.9, 4, 100, 1000};
    struct Axis axis = axis_make(1, 1000, true, 5);
    axis_set_ticks(&axis, values, 5);
    assert_int_equal(axis.n_ticks, 4);
    assert_string_equal(axis.ticks[1].label, "3.9");
    assert_true(axis.ticks[2].value == 100 && axis.ticks[3].value == 1000);
}

static void test_axis_place(void **state) {
    (void)state;
    struct Axis linear = axis_make(2, 4, false, 5), logarithmic = axis_make(1, 100, true, 5);
    assert_true(fabs(axis_place(&linear, 2.5) - 0.25) < 1e-12);
    assert_true(fabs(axis_place(&logarithmic, 10) - 0.5) < 1e-12);
}

static void test_running_mean(void **state) {
    (void)state;
    const double y[6] = {1, 3, NAN, 5, INFINITY, 9};
    double mean[6];
    plot_running_mean(mean, y, 6, 3);
    const double expected[6] = {2, 2, 4, 5, 7, 9};
    for (int i = 0; i < 6; i++) assert_true(fabs(mean[i] - expected[i]) < 1e-12);
    plot_running_mean(mean, y + 2, 1, 1);
    assert_true(isnan(mean[0]));
}

/* Writes a file into the folder; the caller frees the path. */
static char *write_text(const char *name, const char *text) {
    char *path = scratch_path(scratch_folder(), name);
    scratch_write(path, text, strlen(text));
    return path;
}

static const struct MetricsCurve *find_curve(const struct Metrics *metrics, const char *key) {
    for (int i = 0; i < metrics->n_curves; i++)
        if (strcmp(metrics->curves[i].key, key) == 0) return &metrics->curves[i];
    fail_msg("there is no curve %s", key);
    return NULL;
}

static void test_metrics(void **state) {
    (void)state;
    char *path =
        write_text("metrics.jsonl",
                   "{\"iteration\": 0, \"loss\": {\"vsd\": 1.5, \"gan\": 2}, \"stage\": \"two\"}\n"
                   "\n"
                   "{\"iteration\": 10, \"loss\": {\"vsd\": null}, \"lr\": 1e-3, \"on\": true}\n"
                   "{\"iteration\": 20, \"loss.vsd\": 4}\n"
                   "{\"iteration\": 30, \"loss.vsd\": 5}\n"
                   "{\"iteration\": 20, \"loss.vsd\": 6}\n"
                   "{\"iteration\": 20, \"loss.vsd\": 7}\n"
                   "{\"iteration\": 25, \"loss.vs");
    struct Metrics metrics;
    struct Error err = {.text = ""};
    if (!metrics_read(&metrics, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(metrics.n_curves, 3);
    const struct MetricsCurve *vsd = find_curve(&metrics, "loss.vsd");
    assert_int_equal(vsd->n_points, 3);
    assert_true(vsd->iteration[0] == 0 && vsd->iteration[1] == 10 && vsd->iteration[2] == 20);
    assert_true(vsd->value[0] == 1.5 && isnan(vsd->value[1]) && vsd->value[2] == 7);
    assert_int_equal(find_curve(&metrics, "loss.gan")->n_points, 1);
    assert_true(find_curve(&metrics, "lr")->value[0] == 1e-3);
    metrics_free(&metrics);
    free(path);
    assert_true(metrics_key_in("loss", "loss") && metrics_key_in("loss.vsd", "loss"));
    assert_false(metrics_key_in("losses", "loss") || metrics_key_in("loss", "loss.vsd"));
}

static void assert_metrics_error(const char *text, const char *complaint) {
    struct Metrics metrics;
    struct Error err = {.text = ""};
    char *path = write_text("wrong.jsonl", text);
    assert_false(metrics_read(&metrics, path, &err));
    if (!strstr(err.text, complaint) || !strstr(err.text, path)) fail_msg("%s", err.text);
    assert_int_equal(metrics.n_curves, 0);
    free(path);
}

static void test_wrong_metrics(void **state) {
    (void)state;
    const char *const good = "{\"iteration\": 1, \"loss\": 1}\n";
    static const char *const WRONG[][2] = {
        {"nonsense\n", "line 2: is no JSON"},
        {"{\"loss\": 1}\n", "line 2: has no whole number \"iteration\""},
        {"{\"iteration\": 1.5}\n", "line 2: has no whole number \"iteration\""},
        {"[1, 2]\n", "line 2: has no whole number \"iteration\""},
        {"{\"iteration\": 2, \"loss\": NaN}\n", "line 2: is no JSON"},
        {"{\"iteration\": 2, "
         "\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}}\n",
         "deep"},
    };
    for (int i = 0; i < 6; i++) {
        char *text = xprintf("%s%s", good, WRONG[i][0]);
        assert_metrics_error(text, WRONG[i][1]);
        free(text);
    }
    char *text = xstrdup("{\"iteration\": 1");
    for (int i = 0; i <= METRICS_MAX_CURVES; i++) {
        char *longer = xprintf("%s, \"k%d\": 0", text, i);
        free(text);
        text = longer;
    }
    char *line = xprintf("%s}\n", text);
    assert_metrics_error(line, "different keys");
    free(line);
    free(text);
    text = xmalloc(METRICS_MAX_LINE_BYTES + 10);
    memset(text, ' ', METRICS_MAX_LINE_BYTES + 9);
    text[METRICS_MAX_LINE_BYTES + 9] = '\0';
    assert_metrics_error(text, "line 1 is longer");
    free(text);
    struct Metrics metrics;
    struct Error err;
    assert_false(metrics_read(&metrics, scratch_folder(), &err)); /* a folder */
    assert_non_null(strstr(err.text, scratch_folder()));
}

static void test_metrics_that_never_end(void **state) {
    (void)state;
    struct Metrics metrics;
    struct Error err;
    char *path = scratch_path(scratch_folder(), "endless");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_false(metrics_read(&metrics, path, &err));
    assert_non_null(strstr(err.text, "not a regular file"));
    unlink(path);
    scratch_write(path, "", 0);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0); /* a hole, which reads as zeros */
    assert_false(metrics_read(&metrics, path, &err));
    assert_non_null(strstr(err.text, "line 1 holds a NUL byte"));
    unlink(path);
    free(path);
}

enum { POINTS = 50 };

/* The second curve is drawn in orange; the legend holds a swatch of it near the top. */
static void test_curves_are_where_they_belong(void **state) {
    (void)state;
    double x[POINTS], low[POINTS], high[POINTS], top = 1, bottom = 0;
    for (int i = 0; i < POINTS; i++) {
        x[i] = i;
        low[i] = 1;
        high[i] = 2;
    }
    struct PlotSeries series[2] = {{"high", POINTS, x, high, PLOT_LINE},
                                   {"low", POINTS, x, low, PLOT_MARKED}};
    struct PlotPanel panel = {.title = "panel", .x_label = "x", .n_series = 2, .series = series};
    struct PlotFigure figure = {.title = "figure", .n_panels = 1, .n_columns = 1, .panels = &panel};
    struct Error err;
    char *path = scratch_path(scratch_folder(), "plot.png");
    assert_true(plot_write_png(path, &figure, &err));
    assert_true(picture_find_colour(path, 0xD6, 0x6B, 0x1A, &top, &bottom) > 1000);
    assert_true(top < 0.35 && bottom > 0.75 && bottom < 0.95);
    assert_true(picture_find_colour(path, 0x1F, 0x70, 0xAD, &top, &bottom) > 1000);
    assert_true(bottom < 0.5);
    free(path);
}

/* A line of dashes has gaps, a ring a hole and no line; both are grey whatever their place. */
static void test_lines_of_comparison(void **state) {
    (void)state;
    const double x[3] = {8, 64, 512}, y[3] = {1, 2, 4};
    static const enum PlotStyle styles[3] = {PLOT_LINE, PLOT_DASHED, PLOT_RINGS};
    int64_t n_grey[3], n_blue[3];
    double top, bottom;
    struct Error err;
    char *path = scratch_path(scratch_folder(), "grey.png");
    for (int i = 0; i < 3; i++) {
        struct PlotSeries series = {"s", 3, x, y, styles[i]};
        struct PlotPanel panel = {.x_scale = PLOT_LOG, .n_series = 1, .series = &series};
        struct PlotFigure figure = {.n_panels = 1, .n_columns = 1, .panels = &panel};
        assert_true(plot_write_png(path, &figure, &err));
        n_grey[i] = picture_find_colour(path, 0x6B, 0x73, 0x80, &top, &bottom);
        n_blue[i] = picture_find_colour(path, 0x1F, 0x70, 0xAD, &top, &bottom);
    }
    free(path);
    assert_true(n_blue[0] > 1000 && n_blue[1] == 0 && n_blue[2] == 0);
    assert_true(n_grey[1] > n_grey[0] + 500 && n_grey[1] < n_grey[0] + n_blue[0]);
    assert_true(n_grey[2] > n_grey[0] + 50 && n_grey[2] < n_grey[0] + 450);
}

static void test_odd_data_is_drawn(void **state) {
    (void)state;
    const double nothing[3] = {NAN, INFINITY, -INFINITY}, x[3] = {0, 1, 2};
    const double wild[3] = {1e308, -1e308, 0}, huge[3] = {1e-149, 1, 1e149};
    struct PlotSeries series[5] = {{"nothing", 3, x, nothing, PLOT_NOISY},
                                   {"empty", 0, NULL, NULL, PLOT_NOISY},
                                   {"wild", 3, x, wild, PLOT_NOISY},
                                   {"huge", 3, x, huge, PLOT_MARKED},
                                   {"one", 1, x, x, PLOT_LINE}};
    struct PlotPanel panels[5];
    struct Error err = {.text = ""};
    char *path = scratch_path(scratch_folder(), "odd.png");
    for (int scale = 0; scale < 3; scale++) {
        for (int i = 0; i < 5; i++)
            panels[i] = (struct PlotPanel){.y_scale = (enum PlotScale)scale,
                                           .x_scale = (enum PlotScale)scale,
                                           .n_series = i < 4 ? 1 : 5,
                                           .series = i < 4 ? &series[i] : series};
        struct PlotFigure figure = {.n_panels = 5, .n_columns = 2, .panels = panels};
        if (!plot_write_png(path, &figure, &err)) fail_msg("%s", err.text);
    }
    struct PlotFigure tower = {.n_panels = 5, .n_columns = 1, .panels = panels};
    assert_true(plot_write_png(path, &tower, &err));
    free(path);
    path = scratch_path(scratch_folder(), "none/plot.png");
    assert_false(plot_write_png(path, &tower, &err));
    assert_non_null(strstr(err.text, path));
    free(path);
}

static int run_plot(const char *run, const char *out, const char *keys) {
    char *argv[] = {"plot", (char *)run, "--out", (char *)out, "--keys", (char *)keys, NULL};
    return cmd_plot(keys ? 6 : 4, argv);
}

static void test_command(void **state) {
    (void)state;
    char *metrics = write_text("run.jsonl", "{\"iteration\": 1, \"loss\": 1, \"lr\": 1}\n"
                                            "{\"iteration\": 2, \"loss\": 2, \"lr\": 1}\n");
    char *out = scratch_path(scratch_folder(), "run.png"),
         *missing = scratch_path(scratch_folder(), "missing");
    assert_int_equal(run_plot(metrics, out, "nope,nor.this"), EXIT_USER);
    assert_int_equal(run_plot(missing, out, NULL), EXIT_USER);
    assert_false(scratch_exists(out));
    assert_int_equal(run_plot(metrics, out, NULL), EXIT_OK);
    assert_true(scratch_exists(out));
    assert_int_equal(run_plot(metrics, out, "lr,loss,"), EXIT_OK);
    char *argv[] = {"plot", metrics, metrics, "--overlay", "--out", out, NULL};
    assert_int_equal(cmd_plot(6, argv), EXIT_OK);
    free(metrics);
    free(missing);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticks_are_round),
        cmocka_unit_test(test_axes_of_any_range_have_ticks),
        cmocka_unit_test(test_ticks_of_ones_own),
        cmocka_unit_test(test_axis_place),
        cmocka_unit_test(test_running_mean),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_wrong_metrics),
        cmocka_unit_test(test_metrics_that_never_end),
        cmocka_unit_test(test_curves_are_where_they_belong),
        cmocka_unit_test(test_lines_of_comparison),
        cmocka_unit_test(test_odd_data_is_drawn),
        cmocka_unit_test(test_command),
    };
    return cmocka_run_group_tests(tests, scratch_group_set_up, scratch_group_tear_down);
}
