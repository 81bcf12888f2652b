/* `tmd replay` over copies of recorded cases: what passes and what fails, every tensor counting;
 * what
 * --out writes; and how near float32 comes where differences nearly cancel. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "data/safetensors.h"
#include "replay_fixture.h"

static const char *const sound_cases[] = {"dit", "stage1_concat", "student_n2", "critic_n2",
                                          "adamw"};

static void sound_cases_pass(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sound_cases / sizeof *sound_cases; i++) {
        struct CaseCopy c = case_copy_make(sound_cases[i]);
        char *message;
        assert_replay(&c, EXIT_OK);
        /* float32 is not exact */
        assert_int_equal(replay_command(&c, "--tol", "0", &message), EXIT_FAILED);
        free(message);
        case_copy_remove(&c);
    }
}

/* Every single tensor counts: nudged by a thousandth, or with one NaN, it fails the case. */
static void every_expected_tensor_counts(void **state) {
    (void)state;
    struct CaseCopy c = case_copy_make("student_n2");
    struct Backend *be = backend_cpu_create();
    struct TensorList list = {0};
    struct Error err;
    assert_true(replay_run(c.folder, be, &list, &err));
    assert_true(list.n > 100);
    char *path = case_copy_file(&c, "expected.safetensors");
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
    case_copy_remove(&c);
}

/* Without weight in the loss the discriminator still says what it sees. */
static void weightless_discriminator_is_evaluated(void **state) {
    (void)state;
    struct CaseCopy c = case_copy_make("student_n2");
    struct Backend *be = backend_cpu_create();
    struct TensorList list = {0};
    struct TensorDifference *differences;
    struct Error err;
    int n, n_found = 0;
    replay_edit_configuration(&c, "gan_weight: 0.03", "gan_weight: 0.00");
    char *path = case_copy_file(&c, "expected.safetensors");
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
    case_copy_remove(&c);
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
        struct CaseCopy c = case_copy_make("dit");
        replay_edit(&c, edits[i].file, edits[i].name, edits[i].edit);
        assert_replay(&c, EXIT_FAILED);
        case_copy_remove(&c);
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
        struct CaseCopy c = case_copy_make("dit");
        char *message;
        replay_edit(&c, edits[i].file, edits[i].name, EDIT_NAN);
        assert_int_equal(replay_command(&c, "--worst", "3", &message), EXIT_FAILED);
        if (!strstr(message, edits[i].sentence) || strstr(message, "-nan")) fail_msg("%s", message);
        bool only_first = strncmp(message, "  nan ", 6) == 0 && !strstr(message, "\n  nan ");
        if (!only_first) fail_msg("%s", message);
        free(message);
        case_copy_remove(&c);
    }
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
        struct CaseCopy c = case_copy_make(losses[i].name);
        struct Backend *be = backend_cpu_create();
        struct TensorList list = {0};
        struct Error err;
        int n_found = 0;
        replay_edit(&c, "inputs.safetensors", "t", EDIT_EARLY);
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
        case_copy_remove(&c);
    }
}

static void out_has_the_expected_names(void **state) {
    (void)state;
    static const char *const cases[] = {"stage1_gated", "critic_n2", "sample_m2n2",
                                        "teacher_sample", "adamw"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct CaseCopy c = case_copy_make(cases[i]);
        struct Safetensors *written, *expected;
        struct Error err;
        char *out = scratch_path(c.scratch, "out.safetensors"), *message;
        char *path = case_copy_file(&c, "expected.safetensors");
        assert_int_equal(replay_command(&c, "--out", out, &message), EXIT_OK);
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
        case_copy_remove(&c);
    }
}

static void out_that_cannot_be_written(void **state) {
    (void)state;
    struct CaseCopy c = case_copy_make("adamw");
    char *out = scratch_path(c.scratch, "none/out.safetensors"), *message;
    assert_int_equal(replay_command(&c, "--out", out, &message), EXIT_USER);
    assert_non_null(strstr(message, "none/out.safetensors"));
    free(message);
    free(out);
    case_copy_remove(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_cases_pass),
        cmocka_unit_test(every_expected_tensor_counts),
        cmocka_unit_test(weightless_discriminator_is_evaluated),
        cmocka_unit_test(wrong_values_fail),
        cmocka_unit_test(what_is_not_finite_is_named),
        cmocka_unit_test(losses_near_time_0_are_exact),
        cmocka_unit_test(out_has_the_expected_names),
        cmocka_unit_test(out_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
