/* Telling: the block of lines, the warnings, the file.
 *
 * Ranks mostly agree.  So each fact is shown as a text that many ranks have in common, with the
 * ranks that have it where there is more than one such text. */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "data/json_file.h"
#include "train/environment.h"

enum {
    MAX_SHOWN = 16,   /* texts of one fact; the file has all */
    RANKS_TEXT = 256, /* of a list of ranks; a longer one is cut */
    SENTENCE_TEXT = 1024,
    N_WORDS = ENVIRONMENT_MAX_PROCESSORS / 64
};

typedef void FactText(const struct RankFacts *facts, char text[ENVIRONMENT_TEXT]);

static int count_processors(const uint64_t processors[N_WORDS]) {
    int n = 0;
    for (int i = 0; i < N_WORDS; i++) n += __builtin_popcountll(processors[i]);
    return n;
}

static void host_text(const struct RankFacts *facts, char text[ENVIRONMENT_TEXT]) {
    snprintf(text, ENVIRONMENT_TEXT, "%s", facts->host);
}
static void device_text(const struct RankFacts *facts, char text[ENVIRONMENT_TEXT]) {
    snprintf(text, ENVIRONMENT_TEXT, "%s", facts->device);
}
static void software_text(const struct RankFacts *facts, char text[ENVIRONMENT_TEXT]) {
    snprintf(text, ENVIRONMENT_TEXT, "%s", facts->software);
}
static void threads_text(const struct RankFacts *facts, char text[ENVIRONMENT_TEXT]) {
    int n = count_processors(facts->processors);
    char processors[16] = "unknown";
    if (n) snprintf(processors, sizeof processors, "%d", n);
    snprintf(text, ENVIRONMENT_TEXT, "%lld per rank, processors that it may use: %s",
             (long long)facts->n_threads, processors);
}

/* ---- groups of ranks */

static bool same_text(const struct Environment *env, FactText *fact, int a, int b) {
    char text_a[ENVIRONMENT_TEXT], text_b[ENVIRONMENT_TEXT];
    fact(&env->ranks[a], text_a);
    fact(&env->ranks[b], text_b);
    return strcmp(text_a, text_b) == 0;
}

/* The first rank from `from` on whose text no rank before it has; n_ranks: there is none.  These
 * stand for the groups. */
static int next_group(const struct Environment *env, FactText *fact, int from) {
    for (int r = from; r < env->n_ranks; r++) {
        int before = 0;
        while (before < r && !same_text(env, fact, before, r)) before++;
        if (before == r) return r;
    }
    return env->n_ranks;
}

static int count_groups(const struct Environment *env, FactText *fact) {
    int n = 0;
    for (int r = next_group(env, fact, 0); r < env->n_ranks; r = next_group(env, fact, r + 1)) n++;
    return n;
}

/* "rank 3" or "ranks 0-3, 7": those of the group of rank `first`. */
static void name_ranks(const struct Environment *env, FactText *fact, int first,
                       char text[RANKS_TEXT]) {
    size_t at = 0;
    int n = 0;
    char list[RANKS_TEXT] = "";
    for (int r = first, end; r < env->n_ranks && at < sizeof list; r = end) {
        for (end = r; end < env->n_ranks && same_text(env, fact, first, end); end++) n++;
        if (end == r) {
            end++;
            continue;
        }
        const char *comma = at ? ", " : "";
        at += (size_t)(end - r == 1
                           ? snprintf(list + at, sizeof list - at, "%s%d", comma, r)
                           : snprintf(list + at, sizeof list - at, "%s%d-%d", comma, r, end - 1));
    }
    snprintf(text, RANKS_TEXT, "rank%s %.*s", n == 1 ? "" : "s", RANKS_TEXT - 8, list);
}

/* ---- warnings */

struct Listener {
    void (*say)(void *context, const char *sentence);
    void *context;
};

static void say(struct Listener listener, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void say(struct Listener listener, const char *format, ...) {
    char sentence[SENTENCE_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    listener.say(listener.context, sentence);
}

/* Each text that differs from rank 0's. */
static void warn_of_difference(const struct Environment *env, const char *what, FactText *fact,
                               struct Listener listener) {
    int first = next_group(env, fact, 1);
    for (int r = first; r < env->n_ranks; r = next_group(env, fact, r + 1)) {
        char usual[ENVIRONMENT_TEXT], other[ENVIRONMENT_TEXT], ranks[RANKS_TEXT];
        fact(&env->ranks[0], usual);
        fact(&env->ranks[r], other);
        name_ranks(env, fact, r, ranks);
        say(listener, "%s of %s: expected that of rank 0, '%s', got '%s'", what, ranks, usual,
            other);
    }
}

/* Of one host: all threads of its ranks on all processors that they may use. */
static void warn_of_crowd(const struct Environment *env, int first, struct Listener listener) {
    uint64_t processors[N_WORDS] = {0};
    long long n_threads = 0;
    for (int r = first; r < env->n_ranks; r++) {
        if (!same_text(env, host_text, first, r)) continue;
        n_threads += env->ranks[r].n_threads;
        for (int i = 0; i < N_WORDS; i++) processors[i] |= env->ranks[r].processors[i];
    }
    int n = count_processors(processors);
    char ranks[RANKS_TEXT];
    name_ranks(env, host_text, first, ranks);
    if (n && n_threads > n)
        say(listener,
            "%s, %s: %lld threads on the %d processors that they may use; fewer "
            "(OMP_NUM_THREADS), or another binding of ranks, would be faster",
            env->ranks[first].host, ranks, n_threads, n);
}

static void warn_of_clocks(const struct Environment *env, struct Listener listener) {
    for (int r = 1; r < env->n_ranks; r++)
        if (fabs(env->clock_ahead[r]) - env->clock_uncertainty > ENVIRONMENT_MAX_SKEW)
            say(listener, "the clock of rank %d (%s) is %.1f s %s that of rank 0 (%s)", r,
                env->ranks[r].host, fabs(env->clock_ahead[r]),
                env->clock_ahead[r] > 0.0 ? "ahead of" : "behind", env->ranks[0].host);
}

void environment_warn(const struct Environment *env,
                      void (*call)(void *context, const char *sentence), void *context) {
    struct Listener listener = {call, context};
    char sentence[CHECKPOINT_ROOM_TEXT];
    warn_of_difference(env, "the device", device_text, listener);
    warn_of_difference(env, "the software", software_text, listener);
    for (int r = 0; r < env->n_ranks; r = next_group(env, host_text, r + 1))
        warn_of_crowd(env, r, listener);
    warn_of_clocks(env, listener);
    if (checkpoint_room_warning(&env->room, sentence)) say(listener, "%s", sentence);
}

/* ---- lines */

static void print_fact(const struct Environment *env, const char *label, FactText *fact, bool list,
                       FILE *out) {
    int n = count_groups(env, fact), shown = 0;
    for (int r = 0; r < env->n_ranks; r = next_group(env, fact, r + 1)) {
        char text[ENVIRONMENT_TEXT], ranks[RANKS_TEXT];
        if (shown++ == MAX_SHOWN) break;
        fact(&env->ranks[r], text);
        name_ranks(env, fact, r, ranks);
        fprintf(out, "  %-10s %s", shown == 1 ? label : "", text);
        fprintf(out, list || n > 1 ? " (%s)\n" : "\n", ranks);
    }
    if (n > MAX_SHOWN) fprintf(out, "  %-10s and %d more\n", "", n - MAX_SHOWN);
}

static void print_clocks(const struct Environment *env, FILE *out) {
    double farthest = 0.0;
    for (int r = 1; r < env->n_ranks; r++) farthest = fmax(farthest, fabs(env->clock_ahead[r]));
    if (env->n_ranks > 1)
        fprintf(out, "  %-10s within %.3g ms of rank 0's, measured to %.2g ms\n", "clocks",
                1e3 * farthest, 1e3 * env->clock_uncertainty);
}

static void print_warning(void *context, const char *sentence) {
    fprintf(context, "  %-10s %s\n", "warning:", sentence);
}

void environment_print(const struct Environment *env, FILE *out) {
    fprintf(out, "environment: %d rank%s on %d host%s\n", env->n_ranks,
            env->n_ranks == 1 ? "" : "s", count_groups(env, host_text),
            count_groups(env, host_text) == 1 ? "" : "s");
    print_fact(env, "software", software_text, false, out);
    print_fact(env, "hosts", host_text, true, out);
    print_fact(env, "devices", device_text, false, out);
    print_fact(env, "threads", threads_text, false, out);
    print_clocks(env, out);
    checkpoint_room_print(&env->room, out);
    environment_warn(env, print_warning, out);
}

/* ---- the file */

/* JSON is UTF-8; names of hosts and folders may be anything. */
static json_t *text_json(const char *text) {
    json_t *string = json_string(text);
    return string ? string : json_string("(not UTF-8)");
}

static json_t *rank_json(const struct Environment *env, int r) {
    const struct RankFacts *facts = &env->ranks[r];
    return json_pack("{s:i, s:o, s:o, s:o, s:I, s:i, s:f}", "rank", r, "host",
                     text_json(facts->host), "device", text_json(facts->device), "software",
                     text_json(facts->software), "threads", (json_int_t)facts->n_threads,
                     "processors", count_processors(facts->processors), "clock_ahead",
                     env->clock_ahead[r]);
}

static void append_warning(void *context, const char *sentence) {
    json_array_append_new(context, text_json(sentence));
}

bool environment_save(const struct Environment *env, const char *path, struct Error *err) {
    json_t *ranks = json_array(), *warnings = json_array();
    for (int r = 0; r < env->n_ranks; r++) json_array_append_new(ranks, rank_json(env, r));
    environment_warn(env, append_warning, warnings);
    const struct CheckpointRoom *room = &env->room;
    json_t *root =
        json_pack("{s:o, s:f, s:{s:I, s:I, s:I}, s:o}", "ranks", ranks, "clock_uncertainty",
                  env->clock_uncertainty, "checkpoints", "bytes_each",
                  (json_int_t)room->checkpoint_bytes, "still_to_fit", (json_int_t)room->n_to_fit,
                  "bytes_free", (json_int_t)room->free_bytes, "warnings", warnings);
    TMD_CHECK(root, "out of memory");
    bool ok = json_file_save(path, root, err);
    json_decref(root);
    return ok;
}
