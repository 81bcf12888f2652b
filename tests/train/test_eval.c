/* `tmd sample` and `tmd eval`: what they write, their verdicts, and what they refuse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "data/dataset.h"
#include "sampling_fixture.h"
#include "train/cmd_eval.h"
#include "train/cmd_sample.h"
#include "train/eval_report.h"
#include "train/eval_row.h"

static struct World world;

static int set_up(void **state) {
    (void)state;
    world = world_make();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    world_remove(world);
    return 0;
}

/* ---- verdicts ---- */

static void proportions_are_tested(void **state) {
    (void)state;
    assert_true(fabs(two_proportion_z(60, 40, 100) - 0.2 / sqrt(0.5 * 0.5 * 0.02)) < 1e-12);
    assert_true(two_proportion_z(40, 60, 100) < -2.8);
    assert_true(two_proportion_z(0, 0, 100) == 0.0);
    assert_true(two_proportion_z(100, 100, 100) == 0.0);
    assert_true(two_proportion_z(100, 0, 100) > 10.0);
}

static struct Line line_of(int64_t right, double frechet) {
    return (struct Line){.name = "x",
                         .scores = {.tally = {.clips = 100, .all = right}, .frechet = frechet}};
}

static void a_verdict_needs_match_and_distance(void **state) {
    (void)state;
    struct Line good = line_of(80, 0.1), close = line_of(75, 0.2), bad = line_of(20, 0.2);
    struct Line odd = line_of(80, 0.3), broken = line_of(80, NAN);
    assert_true(verdict_make(&good, &bad).clear);
    assert_false(verdict_make(&bad, &good).clear);
    assert_false(verdict_make(&good, &close).clear); /* z is too small */
    assert_false(verdict_make(&odd, &bad).clear);    /* further from real clips */
    assert_false(verdict_make(&broken, &bad).clear);
    assert_false(verdict_make(&good, &good).clear);
}

static void real_clips_are_held_against_others(void **state) {
    (void)state;
    struct Judge judge;
    struct Scores scores;
    struct Error err;
    char *path = (char *)(uintptr_t)world_path(world, "heldout.h5");
    struct Dataset *dataset = dataset_open(&path, 1, &err);
    assert_non_null(dataset);
    assert_true(judge_open(&judge, dataset, 128, &err));
    judge_clips(&judge, judge.real, &scores);
    assert_int_equal(scores.tally.all, 128);
    assert_true(scores.frechet > 1e-3); /* 0 if the reference were the same clips */
    assert_true(scores.spread > 0.05);
    judge_free(&judge);
    dataset_close(dataset);
}

/* ---- rows ---- */

/* eval_row_parse of `name`=<run>`options`. */
static bool parse(struct EvalRow *row, const char *name, const char *options) {
    struct Error err = {0};
    char *spec = xprintf("%s=%s%s", name, world_path(world, "run"), options);
    bool ok = eval_row_parse(row, spec, &err);
    if (!ok) assert_int_equal(err.exit_code, EXIT_USER);
    if (!ok) assert_true(strlen(err.text) > 0);
    free(spec);
    return ok;
}

static void rows_are_read(void **state) {
    (void)state;
    struct EvalRow row;
    assert_true(parse(&row, "the teacher", ""));
    assert_string_equal(row.name, "the teacher");
    assert_string_equal(row.path, world_path(world, "run"));
    assert_int_equal(row.model.role, ROLE_TEACHER);
    assert_true(row.model.use_ema && !row.model.untrained);
    eval_row_free(&row);
    assert_true(
        parse(&row, "x", ":steps=7,guidance=1.5,ema=no,student.inner_steps=3,role=untrained"));
    assert_int_equal(row.config.sampler.steps, 7);
    assert_true(row.config.sampler.guidance == 1.5);
    assert_int_equal(row.config.student.inner_steps, 3);
    assert_int_equal(row.model.role, ROLE_STUDENT);
    assert_true(!row.model.use_ema && row.model.untrained);
    eval_row_free(&row);
}

static void bad_rows_are_refused(void **state) {
    (void)state;
    static const char *const options[] = {
        ":steps=0",
        ":steps=x",
        ":role=critic",
        ":ema=maybe",
        ":wheels=4",
        ":=",
        ":steps=2,",
        ":model.dim=23",
        ":config=/nonexistent.yaml",
        "/nowhere",
        ":steps=7,steps",
        ":model.nothing=1",
        ":student.head_blocks=3,role=student",
    };
    static const char *const specs[] = {"",
                                        "=",
                                        "name",
                                        "name=",
                                        "=path",
                                        "a,b=path",
                                        "\xff\xfe=path",
                                        "name=/dev/null",
                                        "name=:steps=2"};
    struct EvalRow row;
    struct Error err;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (parse(&row, "row", options[i])) fail_msg("accepted '%s'", options[i]);
        eval_row_free(&row);
    }
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        if (eval_row_parse(&row, specs[i], &err)) fail_msg("accepted '%s'", specs[i]);
        eval_row_free(&row);
    }
}

/* ---- tmd eval ---- */

static int evaluate(const char *must_beat, const char *options, const char *out) {
    char *row = xprintf("teacher=%s%s", world_path(world, "run"), options);
    char *student = xprintf("student=%s:role=untrained", world_path(world, "run"));
    int exit_code = world_command(cmd_eval, "eval", "--data", world_path(world, "heldout.h5"),
                                  "--clips", "128", "--sheet", "3", "--must-beat", must_beat,
                                  "--out", world_path(world, out), row, student, NULL);
    free(row);
    free(student);
    return exit_code;
}

static char *read_text(const char *path) {
    size_t n_bytes;
    unsigned char *bytes = scratch_read(path, &n_bytes);
    char *text = xprintf("%.*s", (int)n_bytes, (char *)bytes);
    free(bytes);
    return text;
}

static void real_clips_beat_an_untrained_model(void **state) {
    (void)state;
    assert_int_equal(evaluate("held-out clips,teacher,student", "", "good"), EXIT_OK);
    assert_int_equal(evaluate("teacher,held-out clips", "", "bad"), EXIT_FAILED);
    char *table = read_text(world_path(world, "good/table.txt"));
    char *json = read_text(world_path(world, "good/table.json"));
    const char *real = strstr(table, "held-out clips");
    assert_non_null(real);
    for (int i = 0; i < 4; i++) { /* shape, colour, direction, all */
        real = strstr(real, "100.0 %");
        assert_non_null(real);
        real++;
    }
    assert_true(real < strstr(table, "\nteacher")); /* all in the first line */
    assert_non_null(strstr(json, "\"frechet\""));
    assert_true(scratch_exists(world_path(world, "good/sheet.png")));
    assert_true(scratch_exists(world_path(world, "good/sheet.gif")));
    free(table);
    free(json);
}

/* The same call, the same clips. */
static void clips_are_reproducible(void **state) {
    (void)state;
    assert_int_equal(evaluate("", ":steps=1", "one"), EXIT_OK);
    assert_int_equal(evaluate("", ":steps=1", "two"), EXIT_OK);
    char *pictures[2] = {xstrdup(world_path(world, "one/sheet.png")),
                         xstrdup(world_path(world, "two/sheet.png"))};
    size_t n_bytes[2];
    unsigned char *bytes[2];
    for (int i = 0; i < 2; i++) bytes[i] = scratch_read(pictures[i], &n_bytes[i]);
    assert_int_equal(n_bytes[0], n_bytes[1]);
    assert_memory_equal(bytes[0], bytes[1], n_bytes[0]);
    for (int i = 0; i < 2; i++) free(bytes[i]), free(pictures[i]);
}

static void bad_evaluations_are_refused(void **state) {
    (void)state;
    char *row = xprintf("teacher=%s", world_path(world, "run"));
    char *held_out = xstrdup(world_path(world, "heldout.h5"));
    const char *const cases[][4] = {
        {"--data", "/nonexistent.h5", "--clips=2", row},
        {"--data", world_path(world, "tiny.yaml"), "--clips=2", row},
        {"--data", held_out, "--clips=129", row}, /* no clips are left for reference */
        {"--data", held_out, "--clips=1", row},
        {"--data", held_out, "--clips=2", "teacher"},
        {"--data", held_out, "--must-beat=teacher,nobody", row},
        {"--data", held_out, "--must-beat=teacher", row},
        {"--data", held_out, "--out=/dev/null/x", row},
        {"--data", held_out, "--batch=1000", row},
        {"--data", held_out, row, row}, /* the same name twice */
        {"--data", held_out, "held-out clips=x", row},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const *c = cases[i];
        int exit_code = world_command(cmd_eval, "eval", c[0], c[1], c[2], c[3], NULL);
        if (exit_code != EXIT_USER) fail_msg("case %zu: exit code %d", i, exit_code);
    }
    free(row);
    free(held_out);
}

/* ---- tmd sample ---- */

static void samples_are_a_dataset(void **state) {
    (void)state;
    struct Error err;
    const char *prompts =
        "# three, with a comment\na red ring moving up\r\n\na blue cross moving left\n"
        "anything at all";
    scratch_write(world_path(world, "prompts.txt"), prompts, strlen(prompts));
    assert_int_equal(world_command(cmd_sample, "sample", world_path(world, "tiny.yaml"),
                                   "sampler.seed=4", "--out", world_path(world, "made.h5"),
                                   "--count", "7", "--batch", "2", "--prompts",
                                   world_path(world, "prompts.txt"), NULL),
                     EXIT_OK);
    char *path = (char *)(uintptr_t)world_path(world, "made.h5"), *prompt;
    struct Dataset *made = dataset_open(&path, 1, &err);
    assert_non_null(made);
    assert_int_equal(dataset_info(made)->n_samples, 7);
    assert_int_equal(dataset_info(made)->frames, 2);
    assert_int_equal(dataset_info(made)->max_text_rows, 5);
    assert_true(dataset_read_prompt(made, 5, &prompt, &err)); /* 5 mod 3 */
    assert_string_equal(prompt, "anything at all");
    free(prompt);
    dataset_close(made);
    assert_true(scratch_exists(world_path(world, "made.png")));
    assert_true(scratch_exists(world_path(world, "made.gif")));
}

static void bad_sample_calls_are_refused(void **state) {
    (void)state;
    char *config = xstrdup(world_path(world, "tiny.yaml"));
    char *out = xprintf("--out=%s", world_path(world, "refused"));
    char *nothing = xprintf("--ckpt=%s", world_path(world, "nothing"));
    char *broken = xprintf("--ckpt=%s", world_path(world, "shapes.h5"));
    char *empty = xprintf("--prompts=%s", world_path(world, "empty.txt"));
    char *strange = xprintf("--prompts=%s", world_path(world, "shapes.h5"));
    scratch_write(world_path(world, "empty.txt"), "# nothing\n\n", 11);
    const char *const cases[][3] = {
        {"/nonexistent.yaml", out, "--count=1"},
        {config, "--count=1", "--batch=1"}, /* no --out */
        {config, out, "--count=0"},
        {config, out, "--role=critic"},
        {config, out, "--role=student"}, /* the run trained a teacher */
        {config, out, nothing},
        {config, out, broken},
        {config, out, empty},
        {config, out, strange},
        {config, out, "--prompts=/nonexistent"},
        {config, out, "data.files=[]"},
        {config, out, "model.in_dim=4"},
        {config, out, "model.text_len=2"},
        {config, out, "sampler.steps=0"},
        {config, "--out=/dev/null/x", "--count=1"},
        {config, "--out=/nonexistent/x.h5", "--count=1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const *c = cases[i];
        int exit_code = world_command(cmd_sample, "sample", c[0], c[1], c[2], NULL);
        if (exit_code != EXIT_USER) fail_msg("case %zu: exit code %d", i, exit_code);
    }
    assert_false(scratch_exists(world_path(world, "refused/samples.h5")));
    char *owned[] = {config, out, nothing, broken, empty, strange};
    for (int i = 0; i < 6; i++) free(owned[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proportions_are_tested),
        cmocka_unit_test(a_verdict_needs_match_and_distance),
        cmocka_unit_test(real_clips_are_held_against_others),
        cmocka_unit_test(rows_are_read),
        cmocka_unit_test(bad_rows_are_refused),
        cmocka_unit_test(real_clips_beat_an_untrained_model),
        cmocka_unit_test(clips_are_reproducible),
        cmocka_unit_test(bad_evaluations_are_refused),
        cmocka_unit_test(samples_are_a_dataset),
        cmocka_unit_test(bad_sample_calls_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
