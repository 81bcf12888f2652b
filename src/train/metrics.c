/* A resumed run first drops the lines of iterations that it will repeat; then each iteration
 * appends one. */
#include "train/metrics.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/file_io.h"

/* ---- the file ---- */

/* The iteration of a line, or -1 for one that a crash cut short. */
static int64_t iteration_of(const char *line) {
    json_t *object = json_loads(line, 0, NULL);
    json_t *iteration = json_object_get(object, "iteration");
    int64_t value = json_is_integer(iteration) ? json_integer_value(iteration) : -1;
    json_decref(object);
    return value;
}

/* Copies the lines of iterations before `first`, of which a crash may have cut off the last one's end. */
static bool copy_lines_before(FILE *out, FILE *in, int64_t first, struct Error *err) {
    enum { MAX_LINE_BYTES = 1 << 16 }; /* ours have one or two thousand */
    char line[MAX_LINE_BYTES];
    bool ok = true;
    for (int64_t number = 1; ok && fgets(line, sizeof line, in); number++) {
        size_t n_bytes = strcspn(line, "\n");
        if (line[n_bytes] != '\n' && !feof(in))
            return error_set(err, "line %lld holds a NUL or has more than %d bytes",
                             (long long)number, MAX_LINE_BYTES - 2);
        line[n_bytes] = '\0';
        int64_t iteration = iteration_of(line);
        if (iteration >= 0 && iteration < first) ok = fprintf(out, "%s\n", line) > 0;
    }
    return (ok && !ferror(in)) || error_set(err, "%s", strerror(errno));
}

/* Puts a new file with the lines of iterations before `first` in the place of the old. */
static bool keep_lines_before(const char *path, int64_t first, struct Error *err) {
    if (access(path, F_OK) != 0 && errno == ENOENT) return true;
    FILE *in = file_open_stream(path, err);
    if (!in) return false;
    char *partial = xprintf("%s.partial", path);
    FILE *out = fopen(partial, "w");
    bool ok = out ? copy_lines_before(out, in, first, err) : error_set(err, "%s", strerror(errno));
    if (out && fclose(out) != 0 && ok) ok = error_set(err, "%s", strerror(errno));
    if (ok && rename(partial, path) != 0) ok = error_set(err, "%s", strerror(errno));
    if (!ok) error_prefix(err, "%s", path);
    if (!ok && out) unlink(partial);
    free(partial);
    fclose(in);
    return ok;
}

bool metrics_open(struct Metrics *m, const struct Config *config, int64_t first, struct Error *err) {
    *m = (struct Metrics){.terminal = isatty(STDERR_FILENO),
                          .started = wall_seconds(),
                          .first_iteration = first,
                          .iterations = config->train.iterations,
                          .log_every = config->train.log_every};
    char *path = xprintf("%s/metrics.jsonl", config->out);
    bool ok = keep_lines_before(path, first, err);
    if (ok) {
        m->file = fopen(path, "a");
        ok = m->file || error_set(err, "%s: %s", path, strerror(errno));
    }
    free(path);
    return ok;
}

static void set_real(json_t *object, const char *prefix, const char *name, double value) {
    char key[64];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    /* JSON has no NaN: a null tells that there was one */
    json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null());
}

/* "loss" stays; "fake_loss" becomes "loss.fake", "vsd" becomes "loss.vsd". */
static void set_loss(json_t *object, const struct StepScalar *scalar) {
    char name[32];
    snprintf(name, sizeof name, "%s", scalar->name);
    char *suffix = strstr(name, "_loss");
    if (suffix) *suffix = '\0';
    bool whole = strcmp(name, "loss") == 0;
    set_real(object, whole ? "" : "loss.", name, scalar->value);
}

static json_t *report_json(const struct IterationReport *r) {
    json_t *object = json_object();
    json_object_set_new(object, "iteration", json_integer(r->iteration));
    json_object_set_new(object, "kind", json_string(step_kind_name(r->kind)));
    for (int i = 0; i < r->n_scalars; i++) set_loss(object, &r->scalars[i]);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!step_trains(r->kind, (enum Role)role) || r->lr[role] == 0.0) continue;
        set_real(object, "grad_norm.", role_name((enum Role)role), r->grad_norm[role]);
        set_real(object, "lr.", role_name((enum Role)role), r->lr[role]);
    }
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        set_real(object, "seconds.", phase_name((enum Phase)phase), r->timer.seconds[phase]);
    set_real(object, "", "samples_per_second", (double)r->samples / phase_timer_total(&r->timer));
    json_object_set_new(object, "memory_bytes", json_integer(r->memory_bytes));
    json_object_set_new(object, "sent_bytes", json_integer(r->sent_bytes));
    json_object_set_new(object, "graphs", json_integer(r->learned.n_kept));
    json_object_set_new(object, "graph_launches", json_integer(r->learned.n_launches));
    if (r->skipped) json_object_set_new(object, "skipped", json_true());
    return object;
}

/* ---- the terminal ---- */

static void print_line(const struct IterationReport *r) {
    printf("%8lld  %-8s", (long long)r->iteration, step_kind_name(r->kind));
    for (int i = 0; i < r->n_scalars; i++) printf("  %s %.5g", r->scalars[i].name, r->scalars[i].value);
    for (int role = 0; role < ROLE_COUNT; role++)
        if (step_trains(r->kind, (enum Role)role) && r->lr[role] > 0.0)
            printf("  |g %s| %.3g", role_name((enum Role)role), r->grad_norm[role]);
    double total = phase_timer_total(&r->timer);
    printf("  %.1f ms  %.1f samples/s%s\n", 1e3 * total, (double)r->samples / total,
           r->skipped ? "  SKIPPED: not finite" : "");
    fflush(stdout);
}

static void draw_progress(const struct Metrics *m, int64_t iteration) {
    enum { WIDTH = 30 };
    int64_t done = iteration + 1 - m->first_iteration, all = m->iterations - m->first_iteration;
    double left = (wall_seconds() - m->started) / (double)done * (double)(all - done);
    int filled = (int)(WIDTH * (iteration + 1) / m->iterations);
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++) bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = '\0';
    long seconds = (long)left;
    fprintf(stderr, "\r[%s] %lld/%lld  %ld:%02ld:%02ld left ", bar, (long long)(iteration + 1),
            (long long)m->iterations, seconds / 3600, seconds / 60 % 60, seconds % 60);
    if (iteration + 1 == m->iterations) fputc('\n', stderr);
    fflush(stderr);
}

bool metrics_report(struct Metrics *m, const struct IterationReport *r, struct Error *err) {
    json_t *object = report_json(r);
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
    bool ok = fprintf(m->file, "%s\n", text) > 0 && fflush(m->file) == 0;
    free(text);
    json_decref(object);
    if (r->iteration % m->log_every == 0 || r->skipped || r->iteration + 1 == m->iterations) {
        if (m->terminal) fprintf(stderr, "\r\033[K");
        print_line(r);
    }
    if (m->terminal) draw_progress(m, r->iteration);
    return ok || error_set(err, "metrics.jsonl: %s", strerror(errno));
}

void metrics_close(struct Metrics *m) {
    if (m->file) fclose(m->file);
    m->file = NULL;
}
