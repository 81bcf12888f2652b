/* compare_metrics A B LOSS_TOLERANCE NORM_TOLERANCE
 *
 * Holds two metrics.jsonl of the same run against each other: the same iterations of the same kinds
 * with the same keys, and every loss and gradient norm the same up to |a - b| <= tolerance max(|a|,
 * |b|). Prints the worst of each key.  Exits 1 if anything differs, or if there was nothing to
 * compare. */
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEYS = 32 };

struct Worst {
    char key[64];
    double relative, tolerance, a, b;
    long long iteration;
    int n;
};

struct Comparison {
    struct Worst worst[MAX_KEYS];
    int n_keys, n_lines;
};

_Noreturn static void differ(const char *what, long long iteration) {
    fprintf(stderr, "compare_metrics: %s at iteration %lld\n", what, iteration);
    exit(1);
}

static double relative_difference(double a, double b) {
    double largest = fmax(fabs(a), fabs(b));
    return largest > 0.0 ? fabs(a - b) / largest : 0.0;
}

static struct Worst *worst_of(struct Comparison *c, const char *key, double tolerance) {
    for (int i = 0; i < c->n_keys; i++)
        if (strcmp(c->worst[i].key, key) == 0) return &c->worst[i];
    if (c->n_keys == MAX_KEYS) differ("too many keys", -1);
    struct Worst *worst = &c->worst[c->n_keys++];
    *worst = (struct Worst){.relative = -1.0, .tolerance = tolerance};
    snprintf(worst->key, sizeof worst->key, "%s", key);
    return worst;
}

static void compare_value(struct Comparison *c, const char *key, const json_t *a, const json_t *b,
                          double tolerance, long long iteration) {
    if (!json_is_real(a) || !json_is_real(b)) differ(key, iteration); /* a null was not finite */
    struct Worst *worst = worst_of(c, key, tolerance);
    double relative = relative_difference(json_real_value(a), json_real_value(b));
    worst->n++;
    if (relative <= worst->relative) return;
    worst->relative = relative;
    worst->a = json_real_value(a);
    worst->b = json_real_value(b);
    worst->iteration = iteration;
}

static void compare_lines(struct Comparison *c, json_t *a, json_t *b, double loss_tolerance,
                          double norm_tolerance) {
    const char *key;
    json_t *value;
    long long iteration = json_integer_value(json_object_get(a, "iteration"));
    if (!json_equal(json_object_get(a, "iteration"), json_object_get(b, "iteration")) ||
        !json_equal(json_object_get(a, "kind"), json_object_get(b, "kind")) ||
        json_object_size(a) != json_object_size(b))
        differ("other iterations, kinds or keys", iteration);
    json_object_foreach(a, key, value) {
        bool loss = strncmp(key, "loss", 4) == 0, norm = strncmp(key, "grad_norm.", 10) == 0;
        if (loss || norm)
            compare_value(c, key, value, json_object_get(b, key),
                          loss ? loss_tolerance : norm_tolerance, iteration);
    }
    c->n_lines++;
}

static FILE *open_file(const char *path) {
    FILE *file = fopen(path, "r");
    if (file) return file;
    perror(path);
    exit(1);
}

/* The next line as an object, or NULL at the end. */
static json_t *next_line(FILE *file, const char *path) {
    char *line = NULL;
    size_t capacity = 0;
    json_t *object = NULL;
    if (getline(&line, &capacity, file) > 0) {
        object = json_loads(line, 0, NULL);
        if (!json_is_object(object)) {
            fprintf(stderr, "compare_metrics: %s: not JSON: %s", path, line);
            exit(1);
        }
    }
    free(line);
    return object;
}

int main(int argc, char **argv) {
    struct Comparison c = {.n_keys = 0};
    if (argc != 5) {
        fprintf(stderr, "usage: compare_metrics A B LOSS_TOLERANCE NORM_TOLERANCE\n");
        return 1;
    }
    FILE *files[] = {open_file(argv[1]), open_file(argv[2])};
    for (;;) {
        json_t *a = next_line(files[0], argv[1]), *b = next_line(files[1], argv[2]);
        if (!a != !b) differ("one file is shorter, behind line", c.n_lines);
        if (!a) break;
        compare_lines(&c, a, b, strtod(argv[3], NULL), strtod(argv[4], NULL));
        json_decref(a);
        json_decref(b);
    }
    for (int i = 0; i < 2; i++) fclose(files[i]);

    bool same = c.n_keys > 0;
    for (int i = 0; i < c.n_keys; i++) {
        const struct Worst *w = &c.worst[i];
        bool within = w->relative <= w->tolerance;
        printf("%-24s %4d values, worst %.1e (%.9g, %.9g) at iteration %lld%s\n", w->key, w->n,
               w->relative, w->a, w->b, w->iteration, within ? "" : "  TOO MUCH");
        same = same && within;
    }
    if (c.n_keys == 0) fprintf(stderr, "compare_metrics: nothing to compare\n");
    return same ? 0 : 1;
}
