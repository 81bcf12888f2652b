/* Three ways to write the same lines: a table, JSON, and sentences that compare two of them. */
#include "train/eval_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/atomic_file.h"
#include "data/json_file.h"

struct Verdict verdict_make(const struct Line *a, const struct Line *b) {
    struct Verdict v = {.a = a, .b = b};
    v.z = two_proportion_z(a->scores.tally.all, b->scores.tally.all, a->scores.tally.clips);
    v.clear = v.z > VERDICT_LEAST_Z && a->scores.frechet < b->scores.frechet;
    return v;
}

static double percent(int64_t part, int64_t whole) {
    return 100.0 * (double)part / (double)whole;
}

/* ---- for people ---- */

/* A number, or a dash for one that is not known. */
static void print_number(FILE *out, const char *format, double value) {
    char text[32];
    snprintf(text, sizeof text, isnan(value) ? "-" : format, value);
    fprintf(out, "  %8s", text);
}

static void print_line(FILE *out, int width, const struct Line *line) {
    const struct Scores *s = &line->scores;
    const struct ShapeTally *t = &s->tally;
    fprintf(out, "%-*s", width, line->name);
    print_number(out, "%.2f", s->nfe);
    const int64_t shares[] = {t->kind, t->colour, t->direction, t->all};
    for (int i = 0; i < 4; i++) print_number(out, "%.1f %%", percent(shares[i], t->clips));
    print_number(out, "%.4f", s->frechet);
    print_number(out, "%.3f", s->spread);
    print_number(out, "%.1f", 1e3 * s->seconds_per_clip);
    fprintf(out, "\n");
}

/* "name (NFE 2.67)"; real clips cost nothing. */
static void print_name(FILE *out, const struct Line *line) {
    fputs(line->name, out);
    if (!isnan(line->scores.nfe)) fprintf(out, " (NFE %.2f)", line->scores.nfe);
}

static void print_verdict(FILE *out, const struct Verdict *v) {
    const struct Scores *a = &v->a->scores, *b = &v->b->scores;
    print_name(out, v->a);
    fputs(" against ", out);
    print_name(out, v->b);
    fprintf(out, ": all right %.1f %% against %.1f %% (z = %.1f), Frechet %.4f against %.4f: %s\n",
            100.0 * scores_match(a), 100.0 * scores_match(b), v->z, a->frechet, b->frechet,
            v->clear ? "clearly better" : "NOT clearly better");
}

void report_print(const struct Report *report, FILE *out) {
    static const char *const columns[] = {"NFE", "shape",   "colour", "direct.",
                                          "all", "Frechet", "spread", "ms/clip"};
    int width = 0;
    for (int i = 0; i < report->n_lines; i++)
        if ((int)strlen(report->lines[i].name) > width) width = (int)strlen(report->lines[i].name);
    fprintf(out, "%-*s", width, "");
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) fprintf(out, "  %8s", columns[i]);
    fprintf(out, "\n");
    for (int i = 0; i < report->n_lines; i++) print_line(out, width, &report->lines[i]);
    if (report->n_verdicts) fprintf(out, "\n");
    for (int i = 0; i < report->n_verdicts; i++) print_verdict(out, &report->verdicts[i]);
}

/* ---- for programs ---- */

static json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* null for a text that is no UTF-8 (a path may hold anything), or none. */
static json_t *json_text(const char *text) {
    json_t *value = text ? json_string(text) : NULL;
    return value ? value : json_null();
}

static json_t *json_line(const struct Line *line) {
    const struct Scores *s = &line->scores;
    const struct ShapeTally *t = &s->tally;
    double n = (double)t->clips;
    json_t *object = json_object();
    json_object_set_new(object, "name", json_text(line->name));
    json_object_set_new(object, "source", json_text(line->source));
    json_object_set_new(object, "nfe", json_number(s->nfe));
    json_object_set_new(object, "shape", json_real((double)t->kind / n));
    json_object_set_new(object, "colour", json_real((double)t->colour / n));
    json_object_set_new(object, "direction", json_real((double)t->direction / n));
    json_object_set_new(object, "all", json_real(scores_match(s)));
    json_object_set_new(object, "frechet", json_number(s->frechet));
    json_object_set_new(object, "spread", json_number(s->spread));
    json_object_set_new(object, "seconds_per_clip", json_number(s->seconds_per_clip));
    return object;
}

static json_t *json_verdict(const struct Verdict *v) {
    json_t *object = json_object();
    json_object_set_new(object, "better", json_text(v->a->name));
    json_object_set_new(object, "than", json_text(v->b->name));
    json_object_set_new(object, "z", json_number(v->z));
    json_object_set_new(object, "clear", json_boolean(v->clear));
    return object;
}

static bool write_json(const struct Report *report, const char *path, struct Error *err) {
    json_t *root = json_object(), *rows = json_array(), *verdicts = json_array();
    for (int i = 0; i < report->n_lines; i++)
        json_array_append_new(rows, json_line(&report->lines[i]));
    for (int i = 0; i < report->n_verdicts; i++)
        json_array_append_new(verdicts, json_verdict(&report->verdicts[i]));
    json_object_set_new(root, "data", json_text(report->data));
    json_object_set_new(root, "clips", json_integer(report->n_clips));
    json_object_set_new(root, "seed", json_integer(report->seed));
    json_object_set_new(root, "rows", rows);
    json_object_set_new(root, "verdicts", verdicts);
    bool ok = json_file_save(path, root, err);
    json_decref(root);
    return ok;
}

static bool write_text(const struct Report *report, const char *path, struct Error *err) {
    char *text = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    TMD_CHECK(out, "out of memory");
    report_print(report, out);
    TMD_CHECK(fclose(out) == 0, "out of memory");
    bool ok = atomic_file_write(path, text, n_bytes, err);
    free(text);
    return ok;
}

bool report_write(const struct Report *report, const char *folder, struct Error *err) {
    char *text = xprintf("%s/table.txt", folder), *json = xprintf("%s/table.json", folder);
    bool ok = write_text(report, text, err) && write_json(report, json, err);
    free(text);
    free(json);
    return ok;
}
