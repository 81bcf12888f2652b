/* What `tmd replay` refuses in one sentence: missing, additional and misshapen tensors, numbers of
 * the wrong kind, an unknown kind of case, a truncated file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "replay_fixture.h"

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
        struct CaseCopy c = case_copy_make("dit");
        replay_edit(&c, edits[i].file, edits[i].name, edits[i].edit);
        assert_refused(&c, edits[i].file, edits[i].name);
        case_copy_remove(&c);
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
        struct CaseCopy c = case_copy_make("dit");
        char *file = xprintf("%s.safetensors", edits[i].file);
        replay_edit(&c, file, edits[i].name, edits[i].edit);
        assert_refused(&c, edits[i].got, edits[i].expected);
        free(file);
        case_copy_remove(&c);
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
        struct CaseCopy c = case_copy_make(edits[i].name);
        char *tensor = xprintf("'%s'", edits[i].tensor),
             *file = xprintf("%s.safetensors", edits[i].file);
        replay_edit(&c, file, edits[i].tensor, edits[i].edit);
        assert_refused(&c, tensor, edits[i].word);
        free(tensor);
        free(file);
        case_copy_remove(&c);
    }
}

/* Of a type that can be read, but is none of a weight's. */
static void narrow_integers_are_no_weights(void **state) {
    (void)state;
    struct CaseCopy c = case_copy_make("dit");
    replay_edit_text(&c, "teacher.safetensors", "\"F32\"", "\"I32\"");
    assert_refused(&c, "teacher.safetensors: tensor 'blocks.0.cross_attn.k.bias' holds I32",
                   "expected F32");
    case_copy_remove(&c);
}

/* Evaluated all the same, so that what its heads read must be there. */
static void weightless_discriminator_is_checked(void **state) {
    (void)state;
    static const char *const names[] = {"student_n2", "critic_n2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct CaseCopy c = case_copy_make(names[i]);
        replay_edit_configuration(&c, "gan_weight: 0.03", "gan_weight: 0.00");
        replay_edit_configuration(&c, "features: [1, 2, 3]", "features: [1, 2, 9]");
        assert_refused(&c, "discriminator.features", "model.num_layers");
        replay_edit_configuration(&c, "features: [1, 2, 9]", "features: [       ]");
        /* no heads: what they should give is missing */
        char *message;
        assert_int_not_equal(replay_command(&c, NULL, NULL, &message), EXIT_OK);
        free(message);
        case_copy_remove(&c);
    }
}

static void damaged_files_are_refused(void **state) {
    (void)state;
    for (int i = 0; i < CASE_FILES; i++)
        for (int gone = 0; gone < 2; gone++) {
            struct CaseCopy c = case_copy_make("student_n2");
            size_t n_bytes;
            char *path = case_copy_file(&c, case_files[i]);
            unsigned char *bytes = scratch_read(path, &n_bytes);
            if (gone)
                assert_int_equal(unlink(path), 0);
            else /* within the data; a configuration loses half its lines */
                scratch_write(path, bytes, i ? n_bytes - 5 : n_bytes / 2);
            if (gone && strcmp(case_files[i], "expected.safetensors") == 0)
                assert_replay(&c, EXIT_OK); /* nothing to compare with is no mistake */
            else
                assert_refused(&c, i ? case_files[i] : "", "");
            free(bytes);
            free(path);
            case_copy_remove(&c);
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
        struct CaseCopy c = case_copy_make("dit");
        char *path = case_copy_file(&c, "case.yaml");
        scratch_write(path, configs[i].yaml, strlen(configs[i].yaml));
        assert_refused(&c, configs[i].word, "");
        free(path);
        case_copy_remove(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_tensors_are_refused),
        cmocka_unit_test(messages_show_shapes),
        cmocka_unit_test(wrong_numbers_are_refused),
        cmocka_unit_test(narrow_integers_are_no_weights),
        cmocka_unit_test(weightless_discriminator_is_checked),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(wrong_configurations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
