/* `tmd replay` over damaged copies of recorded cases: a wrong value, a missing, additional or
 * misshapen tensor, numbers of the wrong kind, an unknown kind, a truncated file; what --out
 * writes; and how near float32 comes where differences nearly cancel. */
#define _GNU_SOURCE /* memmem */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "data/safetensors.h"
#include "data/safetensors_writer.h"
#include "train/replay.h"

static const char *const files[] = {
    "case.yaml",           "inputs.safetensors", "expected.safetensors",     "teacher.safetensors",
    "student.safetensors", "fake.safetensors",   "discriminator.safetensors"};
enum { N_FILES = sizeof files / sizeof *files };

/* A copy of a recorded case that may be damaged. */
struct Case {
    char *scratch, *folder;
};

static char *case_file(const struct Case *c, const char *name) {
    return scratch_path(c->folder, name);
}

static struct Case case_copy(const char *name) {
    struct Case c = {.scratch = scratch_make()};
    c.folder = scratch_path(c.scratch, "");
    for (int i = 0; i < N_FILES; i++) {
        size_t n_bytes;
        char *from = xprintf("%s/%s/%s", TMD_CASES_DIR, name, files[i]),
             *to = case_file(&c, files[i]);
        if (scratch_exists(from)) {
            unsigned char *bytes = scratch_read(from, &n_bytes);
            scratch_write(to, bytes, n_bytes);
            free(bytes);
        }
        free(from);
        free(to);
    }
    return c;
}

static void case_remove(struct Case *c) {
    free(c->folder);
    scratch_remove(c->scratch);
}

/* The exit code of `tmd replay FOLDER [flag value]`; *message (the caller frees it) gets what it
 * prints. */
static int replay(const struct Case *c, const char *flag, const char *value, char **message) {
    char *argv[] = {(char *)(uintptr_t) "replay", c->folder, (char *)(uintptr_t)flag,
                    (char *)(uintptr_t)value, NULL};
    char *path = scratch_path(c->scratch, "printed");
    int streams[] = {STDOUT_FILENO, STDERR_FILENO}, saved[2];
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0666);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        saved[i] = dup(streams[i]);
        assert_true(dup2(file, streams[i]) >= 0);
    }
    int code = cmd_replay(flag ? 4 : 2, argv);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        assert_true(dup2(saved[i], streams[i]) >= 0);
        close(saved[i]);
    }
    close(file);
    size_t n_bytes;
    unsigned char *text = scratch_read(path, &n_bytes);
    *message = xprintf("%.*s", (int)n_bytes, (const char *)text);
    free(text);
    free(path);
    return code;
}

static void assert_replay(const struct Case *c, int expected_code) {
    char *message;
    int code = replay(c, NULL, NULL, &message);
    if (code != expected_code) fail_msg("exit code %d, not %d: %s", code, expected_code, message);
    free(message);
}

/* Exit code 2, and one sentence with both words. */
static void assert_refused(const struct Case *c, const char *word, const char *other_word) {
    char *message;
    int code = replay(c, NULL, NULL, &message);
    if (code != EXIT_USER) fail_msg("exit code %d: %s", code, message);
    if (strncmp(message, "tmd: ", 5) != 0 || strchr(message, '\n') != message + strlen(message) - 1)
        fail_msg("not one sentence: %s", message);
    if (!strstr(message, word) || !strstr(message, other_word))
        fail_msg("names '%s' and '%s'? %s", word, other_word, message);
    free(message);
}

/* ---- edits ---- */

enum Edit {
    EDIT_NONE,
    EDIT_NUDGE,
    EDIT_NAN,
    EDIT_EARLY, /* times near 0 */
    EDIT_DROP,
    EDIT_ADD,
    EDIT_RESHAPE, /* a dimension more, in front */
    EDIT_EMPTY,
    EDIT_INTEGERS,
    EDIT_REALS
};

/* Announces `info`'s name and shape, edited. */
static void declare(struct SafetensorsWriter *w, const struct SafetensorsInfo *info,
                    enum Dtype dtype, enum Edit edit) {
    int64_t shape[SAFETENSORS_MAX_DIMS + 1] = {1};
    bool reshape = edit == EDIT_RESHAPE;
    memcpy(shape + 1, info->shape, sizeof *shape * (size_t)info->n_dims);
    if (edit == EDIT_EMPTY) shape[1] = 0;
    safetensors_writer_declare(w, info->name, dtype, info->n_dims + reshape, shape + !reshape);
}

/* Writes a tensor of zeros that was declared as integers. */
static void write_integers(struct SafetensorsWriter *w, const struct SafetensorsInfo *info) {
    struct Error err;
    int64_t *zeros = xcalloc((size_t)info->n_elems * sizeof *zeros);
    assert_true(safetensors_write_i64(w, info->name, zeros, &err));
    free(zeros);
}

static void edit_values(float *data, enum Edit edit, int64_t n_elems) {
    for (int64_t i = 0; edit == EDIT_NUDGE && i < n_elems; i++) data[i] *= 1.1f;
    for (int64_t i = 0; edit == EDIT_EARLY && i < n_elems; i++) data[i] = 0.001f;
    if (edit == EDIT_NAN) data[n_elems / 2] = -NAN;
}

/* Rewrites a file of the case, tensor `name` edited (EDIT_ADD: added): integers as I64, else
 * float32. */
static void edit(const struct Case *c, const char *file, const char *name, enum Edit edit) {
    struct Safetensors *st;
    struct Error err;
    char *path = case_file(c, file);
    const int64_t one = 1;
    assert_true(safetensors_open(path, &st, &err));
    assert_true((safetensors_find(st, name) >= 0) == (edit != EDIT_ADD));
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    if (edit == EDIT_ADD) safetensors_writer_declare(w, name, DTYPE_F32, 1, &one);
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < safetensors_count(st); i++) {
            const struct SafetensorsInfo *info = safetensors_info(st, i);
            bool edited = strcmp(info->name, name) == 0;
            bool integers = edited ? edit == EDIT_INTEGERS : info->dtype == DTYPE_I64;
            if (edited && edit == EDIT_DROP) continue;
            if (pass == 0) {
                declare(w, info, integers ? DTYPE_I64 : DTYPE_F32, edited ? edit : EDIT_NONE);
                continue;
            }
            if (integers) {
                write_integers(w, info);
                continue;
            }
            float *data = xmalloc((size_t)info->n_elems * sizeof *data);
            assert_true(safetensors_read_f32(st, i, data, &err));
            if (edited) edit_values(data, edit, info->n_elems);
            assert_true(safetensors_write_f32(w, info->name, data, &err));
            free(data);
        }
    if (edit == EDIT_ADD) assert_true(safetensors_write_f32(w, name, &(float){1.0f}, &err));
    assert_true(safetensors_writer_commit(w, &err));
    safetensors_close(st);
    free(path);
}

/* ---- tests ---- */

static const char *const sound_cases[] = {"dit", "stage1_concat", "student_n2", "critic_n2",
                                          "adamw"};

static void sound_cases_pass(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sound_cases / sizeof *sound_cases; i++) {
        struct Case c = case_copy(sound_cases[i]);
        char *message;
        assert_replay(&c, EXIT_OK);
        /* float32 is not exact */
        assert_int_equal(replay(&c, "--tol", "0", &message), EXIT_FAILED);
        free(message);
        case_remove(&c);
    }
}

/* Every single tensor counts: nudged by a thousandth, or with one NaN, it fails the case. */
static void every_expected_tensor_counts(void **state) {
    (void)state;
    struct Case c = case_copy("student_n2");
    struct Backend *be = backend_cpu_create();
    struct TensorList list = {0};
    struct Error err;
    assert_true(replay_run(c.folder, be, &list, &err));
    assert_true(list.n > 100);
    char *path = case_file(&c, "expected.safetensors");
    for (int i = 0; i < list.n; i++)
        for (int edit = 0; edit < 2; edit++) {
            struct TensorDifference *differences;
            struct NamedTensor *t = &list.items[i];
            int n;
            float kept = t->data[t->n_elems / 2];
            for (int64_t k = 0; edit == 0 && k < t->n_elems; k++) t->data[k] *= 1.001f;
            if (edit == 1) t->data[t->n_elems / 2] = NAN;
            assert_true(tensor_list_compare(&list, path, &differences, &n, &err));
            assert_int_equal(n, list.n);
            assert_string_equal(differences[0].tensor->name, t->name);
            assert_false(differences[0].norm_relative <= 1e-4);
            free(differences);
            for (int64_t k = 0; edit == 0 && k < t->n_elems; k++) t->data[k] /= 1.001f;
            if (edit == 1) t->data[t->n_elems / 2] = kept;
        }
    tensor_list_free(&list);
    be->destroy(be);
    free(path);
    case_remove(&c);
}

/* Replaces the first `from` in a file of the case by `to`, which is as long. */
static void edit_text(const struct Case *c, const char *file, const char *from, const char *to) {
    size_t n_bytes;
    char *path = case_file(c, file);
    unsigned char *bytes = scratch_read(path, &n_bytes);
    unsigned char *at = memmem(bytes, n_bytes, from, strlen(from));
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    scratch_write(path, bytes, n_bytes);
    free(bytes);
    free(path);
}

static void edit_configuration(const struct Case *c, const char *from, const char *to) {
    edit_text(c, "case.yaml", from, to);
}

/* Without weight in the loss the discriminator still says what it sees. */
static void weightless_discriminator_is_evaluated(void **state) {
    (void)state;
    struct Case c = case_copy("student_n2");
    struct Backend *be = backend_cpu_create();
    struct TensorList list = {0};
    struct TensorDifference *differences;
    struct Error err;
    int n, n_found = 0;
    edit_configuration(&c, "gan_weight: 0.03", "gan_weight: 0.00");
    char *path = case_file(&c, "expected.safetensors");
    assert_true(replay_run(c.folder, be, &list, &err));
    assert_true(tensor_list_compare(&list, path, &differences, &n, &err));
    for (int i = 0; i < n; i++) {
        bool gan = strcmp(differences[i].tensor->name, "out.gan") == 0;
        bool loss = strcmp(differences[i].tensor->name, "out.loss") == 0;
        if (gan) assert_true(differences[i].norm_relative <= 1e-4);
        if (loss) assert_false(differences[i].norm_relative <= 1e-4);
        n_found += gan + loss;
    }
    assert_int_equal(n_found, 2);
    free(differences);
    free(path);
    tensor_list_free(&list);
    be->destroy(be);
    case_remove(&c);
}

static void wrong_values_fail(void **state) {
    (void)state;
    static const struct {
        const char *file, *name;
        enum Edit edit;
    } edits[] = {{"expected.safetensors", "out.velocity", EDIT_NUDGE},
                 {"expected.safetensors", "grad.x", EDIT_NAN},
                 {"expected.safetensors", "grad.teacher.blocks.1.modulation", EDIT_NUDGE},
                 {"teacher.safetensors", "blocks.0.ffn.2.bias", EDIT_NUDGE},
                 {"inputs.safetensors", "context", EDIT_NUDGE},
                 {"inputs.safetensors", "t", EDIT_NUDGE}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        struct Case c = case_copy("dit");
        edit(&c, edits[i].file, edits[i].name, edits[i].edit);
        assert_replay(&c, EXIT_FAILED);
        case_remove(&c);
    }
}

static void wrong_tensors_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *file, *name;
        enum Edit edit;
    } edits[] = {{"expected.safetensors", "grad.x", EDIT_RESHAPE},
                 {"expected.safetensors", "out.more", EDIT_ADD},
                 {"teacher.safetensors", "blocks.1.norm3.weight", EDIT_DROP},
                 {"teacher.safetensors", "head.modulation", EDIT_RESHAPE},
                 {"teacher.safetensors", "blocks.2.norm3.weight", EDIT_ADD},
                 {"inputs.safetensors", "x", EDIT_DROP},
                 {"inputs.safetensors", "x", EDIT_RESHAPE},
                 {"inputs.safetensors", "t", EDIT_DROP},
                 {"inputs.safetensors", "t", EDIT_RESHAPE},
                 {"inputs.safetensors", "context", EDIT_RESHAPE},
                 {"inputs.safetensors", "grad_out", EDIT_DROP}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        struct Case c = case_copy("dit");
        edit(&c, edits[i].file, edits[i].name, edits[i].edit);
        assert_refused(&c, edits[i].file, edits[i].name);
        case_remove(&c);
    }
}

static void messages_show_shapes(void **state) {
    (void)state;
    static const struct {
        const char *file, *name;
        enum Edit edit;
        const char *got, *expected;
    } edits[] = {
        {"inputs", "context", EDIT_RESHAPE, "shape [1, 2, 10, 12]", "expected [2, 10, 12]"},
        {"inputs", "x", EDIT_RESHAPE, "shape [1, 2, 4, 3, 8, 6]", "expected [-1, 4, -1, -1, -1]"},
        {"inputs", "x", EDIT_EMPTY, "shape [0, 4, 3, 8, 6]", "expected [-1, 4, -1, -1, -1]"},
        {"teacher", "head.modulation", EDIT_RESHAPE, "shape [1, 1, 2, 36]", "expected [1, 2, 36]"},
        {"expected", "out.velocity", EDIT_RESHAPE, "shape [1, 2, ", "expected [2, 4, 3, 8, 6]"}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        struct Case c = case_copy("dit");
        char *file = xprintf("%s.safetensors", edits[i].file);
        edit(&c, file, edits[i].name, edits[i].edit);
        assert_refused(&c, edits[i].got, edits[i].expected);
        free(file);
        case_remove(&c);
    }
}

/* A NaN fails the case, named with its side, and spoils no other tensor's comparison. */
static void what_is_not_finite_is_named(void **state) {
    (void)state;
    static const struct {
        const char *file, *name, *sentence;
    } edits[] = {
        {"expected.safetensors", "grad.x", "'grad.x' is not finite as it is expected: FAILED"},
        {"teacher.safetensors", "head.head.bias",
         "'out.velocity' is not finite as it was computed: FAILED"}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        struct Case c = case_copy("dit");
        char *message;
        edit(&c, edits[i].file, edits[i].name, EDIT_NAN);
        assert_int_equal(replay(&c, "--worst", "3", &message), EXIT_FAILED);
        if (!strstr(message, edits[i].sentence) || strstr(message, "-nan")) fail_msg("%s", message);
        bool only_first = strncmp(message, "  nan ", 6) == 0 && !strstr(message, "\n  nan ");
        if (!only_first) fail_msg("%s", message);
        free(message);
        case_remove(&c);
    }
}

/* NaN in inputs only: weights of a step that was not finite are replayed as they are. */
static void wrong_numbers_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *file, *tensor, *word;
        enum Edit edit;
    } edits[] = {{"dit", "inputs", "x", "NaN", EDIT_NAN},
                 {"dit", "inputs", "context", "NaN", EDIT_NAN},
                 {"dit", "inputs", "t", "NaN", EDIT_NAN},
                 {"adamw", "inputs", "grads", "NaN", EDIT_NAN},
                 {"dit", "inputs", "x", "I64", EDIT_INTEGERS},
                 {"dit", "inputs", "t", "I64", EDIT_INTEGERS},
                 {"dit", "teacher", "head.head.bias", "I64", EDIT_INTEGERS},
                 {"dit", "expected", "grad.x", "I64", EDIT_INTEGERS},
                 {"adamw", "inputs", "param", "I64", EDIT_INTEGERS},
                 {"adamw", "inputs", "param", "missing", EDIT_DROP},
                 {"stage1_gated", "inputs", "drop", "F32", EDIT_REALS}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        struct Case c = case_copy(edits[i].name);
        char *tensor = xprintf("'%s'", edits[i].tensor),
             *file = xprintf("%s.safetensors", edits[i].file);
        edit(&c, file, edits[i].tensor, edits[i].edit);
        assert_refused(&c, tensor, edits[i].word);
        free(tensor);
        free(file);
        case_remove(&c);
    }
}

/* Of a type that can be read, but is none of a weight's. */
static void narrow_integers_are_no_weights(void **state) {
    (void)state;
    struct Case c = case_copy("dit");
    edit_text(&c, "teacher.safetensors", "\"F32\"", "\"I32\"");
    assert_refused(&c, "teacher.safetensors: tensor 'blocks.0.cross_attn.k.bias' holds I32",
                   "expected F32");
    case_remove(&c);
}

/* Renoised to a time near 0, x_hat_t and what it is denoised to are nearly x_hat.  The expected
 * values are an independent program's, in float64; subtracting such tensors in float32 errs by 5e-6
 * and 1e-5. */
static void losses_near_time_0_are_exact(void **state) {
    (void)state;
    static const struct {
        const char *name, *output;
        double expected;
    } losses[] = {{"student_n2", "out.vsd", -0.559993814297},
                  {"critic_n2", "out.fake_loss", 4.42428858321e-6}};
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        struct Case c = case_copy(losses[i].name);
        struct Backend *be = backend_cpu_create();
        struct TensorList list = {0};
        struct Error err;
        int n_found = 0;
        edit(&c, "inputs.safetensors", "t", EDIT_EARLY);
        assert_true(replay_run(c.folder, be, &list, &err));
        for (int k = 0; k < list.n; k++) {
            if (strcmp(list.items[k].name, losses[i].output) != 0) continue;
            n_found++;
            double error = fabs((double)list.items[k].data[0] / losses[i].expected - 1.0);
            if (!(error < 1e-6)) fail_msg("%s: error %g", losses[i].output, error);
        }
        assert_int_equal(n_found, 1);
        tensor_list_free(&list);
        be->destroy(be);
        case_remove(&c);
    }
}

/* Evaluated all the same, so that what its heads read must be there. */
static void weightless_discriminator_is_checked(void **state) {
    (void)state;
    static const char *const names[] = {"student_n2", "critic_n2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct Case c = case_copy(names[i]);
        edit_configuration(&c, "gan_weight: 0.03", "gan_weight: 0.00");
        edit_configuration(&c, "features: [1, 2, 3]", "features: [1, 2, 9]");
        assert_refused(&c, "discriminator.features", "model.num_layers");
        edit_configuration(&c, "features: [1, 2, 9]", "features: [       ]");
        /* no heads: what they should give is missing */
        char *message;
        assert_int_not_equal(replay(&c, NULL, NULL, &message), EXIT_OK);
        free(message);
        case_remove(&c);
    }
}

static void damaged_files_are_refused(void **state) {
    (void)state;
    for (int i = 0; i < N_FILES; i++)
        for (int gone = 0; gone < 2; gone++) {
            struct Case c = case_copy("student_n2");
            size_t n_bytes;
            char *path = case_file(&c, files[i]);
            unsigned char *bytes = scratch_read(path, &n_bytes);
            if (gone)
                assert_int_equal(unlink(path), 0);
            else /* within the data; a configuration loses half its lines */
                scratch_write(path, bytes, i ? n_bytes - 5 : n_bytes / 2);
            if (gone && strcmp(files[i], "expected.safetensors") == 0)
                assert_replay(&c, EXIT_OK); /* nothing to compare with is no mistake */
            else
                assert_refused(&c, i ? files[i] : "", "");
            free(bytes);
            free(path);
            case_remove(&c);
        }
}

static void wrong_configurations_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *word;
    } configs[] = {{"kind: ditt\n", "ditt"},
                   {"", "kind"},
                   {"model:\n  in_dim: 4\n", "kind"}, /* not the rules of a run */
                   {"kind: dit\nmodel:\n  dimm: 4\n", "dimm"},
                   {"kind: dit\nmodel:\n  dim: 36\n  num_heads: 5\n", "model.num_heads"},
                   {"kind: [\n", "case.yaml"}};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct Case c = case_copy("dit");
        char *path = case_file(&c, "case.yaml");
        scratch_write(path, configs[i].yaml, strlen(configs[i].yaml));
        assert_refused(&c, configs[i].word, "");
        free(path);
        case_remove(&c);
    }
}

static void out_has_the_expected_names(void **state) {
    (void)state;
    static const char *const cases[] = {"stage1_gated", "critic_n2", "sample_m2n2",
                                        "teacher_sample", "adamw"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct Case c = case_copy(cases[i]);
        struct Safetensors *written, *expected;
        struct Error err;
        char *out = scratch_path(c.scratch, "out.safetensors"), *message;
        char *path = case_file(&c, "expected.safetensors");
        assert_int_equal(replay(&c, "--out", out, &message), EXIT_OK);
        assert_true(safetensors_open(out, &written, &err) &&
                    safetensors_open(path, &expected, &err));
        assert_true(safetensors_count(expected) > 0);
        for (int64_t k = 0; k < safetensors_count(expected); k++)
            assert_true(safetensors_find(written, safetensors_info(expected, k)->name) >= 0);
        safetensors_close(written);
        safetensors_close(expected);
        free(message);
        free(path);
        free(out);
        case_remove(&c);
    }
}

static void out_that_cannot_be_written(void **state) {
    (void)state;
    struct Case c = case_copy("adamw");
    char *out = scratch_path(c.scratch, "none/out.safetensors"), *message;
    assert_int_equal(replay(&c, "--out", out, &message), EXIT_USER);
    assert_non_null(strstr(message, "none/out.safetensors"));
    free(message);
    free(out);
    case_remove(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_cases_pass),
        cmocka_unit_test(every_expected_tensor_counts),
        cmocka_unit_test(weightless_discriminator_is_evaluated),
        cmocka_unit_test(wrong_values_fail),
        cmocka_unit_test(wrong_tensors_are_refused),
        cmocka_unit_test(messages_show_shapes),
        cmocka_unit_test(what_is_not_finite_is_named),
        cmocka_unit_test(wrong_numbers_are_refused),
        cmocka_unit_test(narrow_integers_are_no_weights),
        cmocka_unit_test(losses_near_time_0_are_exact),
        cmocka_unit_test(weightless_discriminator_is_checked),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(wrong_configurations_are_refused),
        cmocka_unit_test(out_has_the_expected_names),
        cmocka_unit_test(out_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
