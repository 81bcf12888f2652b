/* Wan folders into checkpoints: a tiny model in every form that users bring, and every way in which
 * a folder can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "data/safetensors_writer.h"
#include "data/wan_config.h"
#include "data/wan_import.h"
#include "scratch.h"
#include "wan_fixture.h"

static void test_import_of_every_form(void **state) {
    static const struct WanForm forms[] = {
        {.prefix = "", .layout = WAN_ORIGINAL, .dtype = DTYPE_F32, .with_config = true},
        {.prefix = "", .layout = WAN_DIFFUSERS, .dtype = DTYPE_BF16, .with_config = true},
        {.prefix = "",
         .layout = WAN_DIFFUSERS,
         .dtype = DTYPE_F16,
         .max_shard_bytes = 100000,
         .with_config = true},
        {.prefix = "model.diffusion_model.", .layout = WAN_ORIGINAL, .dtype = DTYPE_F16},
        {.prefix = "net.", .layout = WAN_ORIGINAL, .dtype = DTYPE_BF16, .flat_patch = true},
        {.prefix = "generator_ema.model.",
         .layout = WAN_ORIGINAL,
         .dtype = DTYPE_F32,
         .max_shard_bytes = 1},
    };
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        struct WanImportReport report;
        struct Error err;
        char *folder = scratch_make(), *out = scratch_path(*state, "import.h5");
        wan_write_model(folder, &forms[f]);
        if (!wan_import(folder, out, 1, &report, &err)) fail_msg("form %zu: %s", f, err.text);
        assert_string_equal(report.naming.prefix, forms[f].prefix);
        assert_int_equal(report.naming.layout, forms[f].layout);
        assert_int_equal(report.sizes_inferred, !forms[f].with_config);
        assert_int_equal(report.n_tensors, 15 + 27 * wan_tiny.num_layers);
        wan_check_checkpoint(out, "teacher/param");
        free(out);
        scratch_remove(folder);
    }
}

static void test_a_diffusers_pipeline_has_the_model_in_a_subfolder(void **state) {
    const struct WanForm form = {
        .prefix = "", .layout = WAN_DIFFUSERS, .dtype = DTYPE_F32, .with_config = true};
    struct WanImportReport report;
    struct Error err;
    char *inside = scratch_path(*state, "transformer"), *out = scratch_path(*state, "import.h5");
    assert_int_equal(mkdir(inside, 0700), 0);
    wan_write_model(inside, &form);
    if (!wan_import(*state, out, 0, &report, &err)) fail_msg("%s", err.text);
    wan_check_checkpoint(out, "teacher/param");
    free(inside);
    free(out);
}

static void test_spoilt_folders(void **state) {
    static const struct {
        struct WanForm form;
        const char *what[2];
    } cases[] = {
        {{.prefix = "", .with_config = true, .left_out = "blocks.1.norm3.weight"},
         {"1 missing", "blocks.1.norm3.weight"}},
        {{.prefix = "", .with_config = true, .renamed = "blocks.0.ffn.2.bias"},
         {"1 missing", "1 unexpected (odd)"}},
        {{.prefix = "", .with_config = true, .misshapen = "head.modulation"},
         {"[2, 2, 128]", "head.modulation"}},
        {{.prefix = "", .with_config = true, .nan = "time_embedding.0.bias"},
         {"not finite", "time_embedding.0.bias"}},
        {{.prefix = "net.", .left_out = "head.head.weight"}, {"config.json", "head.head.weight"}},
        {{.prefix = "", .left_out = "blocks.1.modulation"}, {"unexpected", "blocks.1."}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct WanImportReport report;
        struct Error err;
        char *folder = scratch_make(), *out = scratch_path(*state, "import.h5");
        wan_write_model(folder, &cases[c].form);
        if (wan_import(folder, out, 1, &report, &err)) fail_msg("case %zu was accepted", c);
        for (int w = 0; w < 2; w++) {
            if (!strstr(err.text, cases[c].what[w]))
                fail_msg("'%s' does not say '%s'", err.text, cases[c].what[w]);
        }
        assert_non_null(strstr(err.text, folder));
        assert_false(scratch_exists(out));
        assert_int_equal(scratch_count(*state, ".partial"), 0);
        free(out);
        scratch_remove(folder);
    }
}

static void test_a_config_of_another_model(void **state) {
    const struct WanForm form = {.prefix = "", .with_config = true};
    struct ModelConfig other = wan_tiny;
    struct WanImportReport report;
    struct Error err;
    char *path = scratch_path(*state, "config.json"), *out = scratch_path(*state, "import.h5");
    wan_write_model(*state, &form);
    other.num_layers = 3;
    other.ffn_dim = 48;
    assert_true(wan_config_write(path, &other, WAN_ORIGINAL, &err));
    assert_false(wan_import(*state, out, 1, &report, &err));
    assert_non_null(strstr(err.text, "27 missing"));
    assert_non_null(strstr(err.text, "misshapen"));
    free(path);
    free(out);
}

static void test_files_of_other_models(void **state) {
    struct WanImportReport report;
    struct Error err;
    const int64_t shape[] = {2};
    const float data[] = {1, 2};
    char *path = scratch_path(*state, "model.safetensors"),
         *out = scratch_path(*state, "import.h5");
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    safetensors_writer_declare(w, "lm_head.weight", DTYPE_F32, 1, shape);
    assert_true(safetensors_write_f32(w, "lm_head.weight", data, &err));
    assert_true(safetensors_writer_commit(w, &err));
    assert_false(wan_import(*state, out, 1, &report, &err));
    assert_non_null(strstr(err.text, "none of its tensors"));
    free(path);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_import_of_every_form),
        WITH_FOLDER(test_a_diffusers_pipeline_has_the_model_in_a_subfolder),
        WITH_FOLDER(test_spoilt_folders),
        WITH_FOLDER(test_a_config_of_another_model),
        WITH_FOLDER(test_files_of_other_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
