/* Every row samples the prompts of held-out clips 0 .. n - 1 from the same noise; the held-out
 * clips themselves are the first line of the table. */
#include "train/cmd_eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "train/clip_sheet.h"
#include "train/data_fit.h"
#include "train/eval_report.h"
#include "train/eval_row.h"
#include "train/folders.h"
#include "train/phase_timer.h"
#include "train/prompt_set.h"

enum { MAX_ROWS = 16, MAX_SHEET_ROWS = 64, MAX_CLIPS = 1 << 20 };

#define REAL_NAME "held-out clips"

struct Flags {
    const char *data, *out, *must_beat;
    int64_t clips, seed, batch, sheet;
};

static const struct Arg ARGS[] = {
    {"data", ARG_TEXT, offsetof(struct Flags, data), NULL, 0, 0, NULL,
     "held-out clips of the shapes world, twice as many as --clips"},
    {"out", ARG_TEXT, offsetof(struct Flags, out), "", 0, 0, NULL,
     "folder for table.txt, table.json, sheet.png and sheet.gif"},
    {"clips", ARG_INT, offsetof(struct Flags, clips), "256", 2, MAX_CLIPS, NULL,
     "clips of each sampler; 64 prompts exist"},
    {"seed", ARG_INT, offsetof(struct Flags, seed), "0", 0, 9e15, NULL,
     "of the noise, for all rows"},
    {"batch", ARG_INT, offsetof(struct Flags, batch), "16", 1, STUDENT_MAX_BATCH, NULL,
     "clips sampled at a time"},
    {"sheet", ARG_INT, offsetof(struct Flags, sheet), "8", 1, MAX_SHEET_ROWS, NULL,
     "prompts on the contact sheet"},
    {"must-beat", ARG_TEXT, offsetof(struct Flags, must_beat), "", 0, 0, NULL,
     "A,B[,C...]: exit 1 unless row A is clearly better than each of the others"},
};

static const struct ArgTable TABLE = {
    .usage = "tmd eval --data FILE [flags] NAME=PATH[:key=value,...] ...",
    .help =
        "Samples the prompts of held-out clips with every row's sampler, all from the same noise,\n"
        "and prints for each: evaluations of the teacher per clip (NFE), share of clips whose\n"
        "shape, colour, direction of motion and all three match the prompt, Frechet distance to\n"
        "other held-out clips, spread between clips of one prompt, milliseconds per clip.\n"
        "\n"
        "A row is a name and a run's folder or a checkpoint, then options:\n"
        "  role=teacher|student|untrained   untrained: the student as it starts from this teacher\n"
        "  steps= shift= guidance=          of the teacher's sampler\n"
        "  ema=yes|no                       averaged weights where there are some (default yes)\n"
        "  config=FILE                      instead of the configuration that comes with PATH\n"
        "  section.key=                     any key of the configuration\n"
        "\n"
        "  tmd eval --data data/heldout.h5 --must-beat \"stage two,teacher 3 steps\" \\\n"
        "      \"teacher 3 steps=runs/teacher:steps=3,guidance=1\" \"stage two=runs/stage2\"\n"
        "\n"
        "Clearly better: the share with all three right is larger with z > 3 (pooled test of two\n"
        "proportions), and the Frechet distance is smaller.",
    .args = ARGS,
    .n_args = sizeof ARGS / sizeof ARGS[0],
    .min_operands = 1,
    .max_operands = MAX_ROWS,
};

/* Line 0 is the real clips, line i + 1 row i; clips[line] [n_clips, C, F, H, W]. */
struct Eval {
    struct Flags flags;
    struct Dataset *dataset;
    struct Judge judge;
    int n_rows, n_verdicts;
    struct EvalRow rows[MAX_ROWS];
    struct Line lines[MAX_ROWS + 1];
    float *clips[MAX_ROWS + 1];
    struct Verdict verdicts[MAX_ROWS];
};

/* ---- what is asked for ---- */

static const struct Line *find_line(const struct Eval *e, const char *name, size_t length) {
    for (int i = 0; i <= e->n_rows; i++)
        if (strlen(e->lines[i].name) == length && strncmp(e->lines[i].name, name, length) == 0)
            return &e->lines[i];
    return NULL;
}

static bool add_row(struct Eval *e, const char *spec, struct Error *err) {
    struct EvalRow *row = &e->rows[e->n_rows];
    e->n_rows++;
    e->lines[e->n_rows] = (struct Line){.name = ""};
    if (!eval_row_parse(row, spec, err)) return false;
    if (find_line(e, row->name, strlen(row->name)))
        return error_set(err, "two rows are called '%s'", row->name);
    e->lines[e->n_rows] = (struct Line){.name = row->name, .source = row->path};
    return data_fits(&row->config, e->dataset, e->flags.data, err) ||
           error_prefix(err, "row '%s'", row->name);
}

/* The verdicts that --must-beat asks for, yet without their numbers. */
static bool plan_verdicts(struct Eval *e, struct Error *err) {
    const struct Line *first = NULL;
    for (const char *at = e->flags.must_beat; at && *at;) {
        size_t length = strcspn(at, ",");
        const struct Line *line = find_line(e, at, length);
        if (!line) return error_set(err, "--must-beat: no row is called '%.*s'", (int)length, at);
        if (first && e->n_verdicts == MAX_ROWS)
            return error_set(err, "--must-beat: more than %d rows to beat", MAX_ROWS);
        if (first) e->verdicts[e->n_verdicts++] = (struct Verdict){.a = first, .b = line};
        if (!first) first = line;
        at += length + (at[length] == ',');
    }
    return !first || e->n_verdicts > 0 ||
           error_set(err, "--must-beat: expected at least two rows, A,B, got '%s'",
                     e->flags.must_beat);
}

static bool prepare(struct Eval *e, const struct Operands *specs, struct Error *err) {
    char *path = (char *)(uintptr_t)e->flags.data;
    e->lines[0] = (struct Line){.name = REAL_NAME};
    e->dataset = dataset_open(&path, 1, err);
    if (!e->dataset) return false;
    for (int i = 0; i < specs->n; i++)
        if (!add_row(e, specs->items[i], err)) return false;
    if (!plan_verdicts(e, err)) return false;
    if (e->flags.out && !folder_make(e->flags.out, err)) return false;
    return judge_open(&e->judge, e->dataset, e->flags.clips, err) ||
           error_prefix(err, "%s", e->flags.data);
}

/* ---- sampling ---- */

static bool sample_row(struct Eval *e, int i, struct Error *err) {
    struct EvalRow *row = &e->rows[i];
    struct Scores *scores = &e->lines[i + 1].scores;
    struct LoadedSampler sampler;
    struct PromptSet prompts;
    struct VideoShape video = data_video_shape(dataset_info(e->dataset));
    if (!loaded_sampler_open(&sampler, &row->config, row->model, video, e->flags.batch, err))
        return error_prefix(err, "row '%s'", row->name);
    sampler.sampler.seed = (uint64_t)e->flags.seed;
    int64_t n = e->flags.clips,
            n_bytes = n * dataset_video_elems(e->dataset) * (int64_t)sizeof(float);
    bool ok = prompt_set_of_samples(&prompts, e->dataset, 0, n, row->config.model.text_len, err);
    if (ok) {
        e->clips[i + 1] = xmalloc((size_t)n_bytes);
        double start = wall_seconds();
        loaded_sampler_run(&sampler, (struct SampleSet){.n = n,
                                                        .text = prompts.text,
                                                        .neg_text = prompts.neg_text,
                                                        .clips = e->clips[i + 1]});
        scores->seconds_per_clip = (wall_seconds() - start) / (double)n;
        scores->nfe = sampler_nfe(&sampler.sampler);
        prompt_set_free(&prompts);
    }
    loaded_sampler_close(&sampler);
    return ok;
}

static bool sample_all(struct Eval *e, struct Error *err) {
    e->clips[0] = e->judge.real;
    e->lines[0].scores.nfe = e->lines[0].scores.seconds_per_clip = NAN;
    judge_clips(&e->judge, e->clips[0], &e->lines[0].scores);
    for (int i = 0; i < e->n_rows; i++) {
        fprintf(stderr, "sampling %lld clips: %s\n", (long long)e->flags.clips, e->rows[i].name);
        if (!sample_row(e, i, err)) return false;
        judge_clips(&e->judge, e->clips[i + 1], &e->lines[i + 1].scores);
    }
    for (int i = 0; i < e->n_verdicts; i++)
        e->verdicts[i] = verdict_make(e->verdicts[i].a, e->verdicts[i].b);
    return true;
}

/* ---- what comes out ---- */

static bool write_sheet(const struct Eval *e, struct Error *err) {
    struct PromptSet prompts;
    struct ClipColumn columns[MAX_ROWS + 1];
    char *titles[MAX_ROWS + 1];
    int64_t n = e->flags.sheet < e->flags.clips ? e->flags.sheet : e->flags.clips;
    const struct DatasetInfo *info = dataset_info(e->dataset);
    if (!prompt_set_of_samples(&prompts, e->dataset, 0, n, info->max_text_rows, err)) return false;
    for (int i = 0; i <= e->n_rows; i++) {
        titles[i] = i ? xprintf("%s (NFE %.3g)", e->lines[i].name, e->lines[i].scores.nfe)
                      : xstrdup(REAL_NAME);
        columns[i] = (struct ClipColumn){titles[i], e->clips[i]};
    }
    struct ClipSheet sheet = {.info = info,
                              .n_rows = (int)n,
                              .n_columns = e->n_rows + 1,
                              .prompts = (const char *const *)prompts.prompts,
                              .columns = columns};
    char *stem = xprintf("%s/sheet", e->flags.out);
    bool ok = clip_sheet_write(&sheet, stem, err);
    free(stem);
    for (int i = 0; i <= e->n_rows; i++) free(titles[i]);
    prompt_set_free(&prompts);
    return ok;
}

static bool report(const struct Eval *e, struct Error *err) {
    struct Report r = {.data = e->flags.data,
                       .n_clips = e->flags.clips,
                       .seed = e->flags.seed,
                       .lines = e->lines,
                       .n_lines = e->n_rows + 1,
                       .verdicts = e->verdicts,
                       .n_verdicts = e->n_verdicts};
    report_print(&r, stdout);
    return !e->flags.out || (report_write(&r, e->flags.out, err) && write_sheet(e, err));
}

static void eval_free(struct Eval *e) {
    for (int i = 0; i < e->n_rows; i++) {
        eval_row_free(&e->rows[i]);
        free(e->clips[i + 1]);
    }
    judge_free(&e->judge); /* the real clips too */
    dataset_close(e->dataset);
    free(e);
}

int cmd_eval(int argc, char **argv) {
    struct Operands specs;
    struct Error err;
    int exit_code;
    struct Eval *e = xcalloc(sizeof *e);
    if (args_begin(&TABLE, argc, argv, &e->flags, &specs, &exit_code)) {
        bool ok = prepare(e, &specs, &err) && sample_all(e, &err) && report(e, &err);
        exit_code = ok ? EXIT_OK : error_report(&err);
        for (int i = 0; ok && i < e->n_verdicts; i++)
            if (!e->verdicts[i].clear) exit_code = EXIT_FAILED;
    }
    eval_free(e);
    return exit_code;
}
