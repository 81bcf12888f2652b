/* Wan folders into checkpoints and back: generated tiny models in every form that users bring, and
 * every way in which a folder can be wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/checkpoint_model.h"
#include "data/safetensors_writer.h"
#include "data/wan_config.h"
#include "data/wan_export.h"
#include "data/wan_import.h"
#include "scratch.h"

static const struct ModelConfig tiny = {
    .dim = 128,
    .ffn_dim = 40,
    .num_heads = 1,
    .num_layers = 2,
    .freq_dim = 16,
    .text_dim = 12,
    .text_len = 512,
    .in_dim = 4,
    .out_dim = 4,
    .patch_size = {1, 2, 2},
    .eps = 1e-6,
};
static const struct StudentConfig student = {
    .head_blocks = 1,
    .inner_steps = 4,
    .outer_steps = 2,
    .outer_shift = 10,
    .inner_shift = 5,
    .t_max = 0.999,
    .fusion = FUSION_GATED,
};
enum { MAX_ELEMS = 6 * 128 * 128 };

static int64_t count_elems(int n_dims, const int64_t *shape) {
    int64_t n = 1;
    for (int d = 0; d < n_dims; d++) n *= shape[d];
    return n;
}

/* Values that depend on the tensor's original name; exact in bfloat16 and float16. */
static void fill(float *out, const char *name, int64_t n_elems) {
    uint32_t bits = 2166136261u;
    for (const char *c = name; *c; c++) bits = (bits ^ (unsigned char)*c) * 16777619u;
    for (int64_t i = 0; i < n_elems; i++) {
        bits = bits * 1664525u + 1013904223u;
        out[i] = ((float)(bits >> 24) - 128.0f) / 64.0f;
    }
}

/* ---- folders to import ---- */

/* A way to write the tiny model, and what to spoil. */
struct Form {
    const char *prefix;
    enum WanLayout layout;
    enum Dtype dtype;
    int64_t max_shard_bytes; /* 0: one file */
    bool flat_patch, with_config;
    const char *left_out, *renamed, *nan, *misshapen; /* original names, or NULL */
};

static bool is(const char *name, const char *wanted) {
    return wanted && strcmp(name, wanted) == 0;
}

/* Name and shape under which tensor i goes into the file. */
static struct WanTensor stored_tensor(const struct Form *form, int64_t i) {
    struct WanTensor tensor = wan_layout_tensor(&tiny, form->layout, i);
    const struct WanTensor ours = wan_layout_tensor(&tiny, WAN_ORIGINAL, i);
    char *name = xprintf("%s%s", form->prefix, is(ours.name, form->renamed) ? "odd" : tensor.name);
    snprintf(tensor.name, sizeof tensor.name, "%s", name);
    free(name);
    if (form->flat_patch && tensor.n_dims == 5) {
        tensor.shape[1] *= tensor.shape[2] * tensor.shape[3] * tensor.shape[4];
        tensor.n_dims = 2;
    }
    if (is(ours.name, form->misshapen)) tensor.shape[0]++;
    return tensor;
}

static void write_model(const char *folder, const struct Form *form) {
    char *path = scratch_path(folder, SAFETENSORS_WAN_STEM ".safetensors");
    struct SafetensorsWriter *w =
        form->max_shard_bytes
            ? safetensors_writer_new_sharded(folder, SAFETENSORS_WAN_STEM, form->max_shard_bytes)
            : safetensors_writer_new(path);
    struct Error err;
    float *data = xmalloc(2 * MAX_ELEMS * sizeof *data);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < wan_layout_count(&tiny); i++) {
            const struct WanTensor ours = wan_layout_tensor(&tiny, WAN_ORIGINAL, i);
            const struct WanTensor stored = stored_tensor(form, i);
            if (is(ours.name, form->left_out)) continue;
            fill(data, ours.name, count_elems(stored.n_dims, stored.shape));
            if (is(ours.name, form->nan)) data[3] = NAN;
            if (pass == 0)
                safetensors_writer_declare(w, stored.name, form->dtype, stored.n_dims,
                                           stored.shape);
            else
                assert_true(safetensors_write_f32(w, stored.name, data, &err));
        }
    }
    free(data);
    if (!safetensors_writer_commit(w, &err)) fail_msg("%s", err.text);
    free(path);
    path = scratch_path(folder, "config.json");
    if (form->with_config) assert_true(wan_config_write(path, &tiny, form->layout, &err));
    free(path);
}

/* All tensors of the tiny model are in the group, with the values of `fill`. */
static void check_checkpoint(const char *path, const char *group) {
    struct Ckpt *ckpt;
    struct Error err;
    int64_t first;
    if (!ckpt_open(path, &ckpt, &err)) fail_msg("%s", err.text);
    assert_int_equal(ckpt_group(ckpt, group, &first), wan_layout_count(&tiny));
    float *found = xmalloc(MAX_ELEMS * sizeof *found),
          *expected = xmalloc(MAX_ELEMS * sizeof *found);
    for (int64_t i = 0; i < wan_layout_count(&tiny); i++) {
        struct WanTensor tensor = wan_layout_tensor(&tiny, WAN_ORIGINAL, i);
        int64_t n_elems = count_elems(tensor.n_dims, tensor.shape);
        if (!ckpt_read_f32(ckpt, group, tensor.name, tensor.n_dims, tensor.shape, false, found,
                           &err))
            fail_msg("%s", err.text);
        fill(expected, tensor.name, n_elems);
        assert_memory_equal(found, expected, (size_t)n_elems * sizeof *found);
    }
    free(found);
    free(expected);
    struct ModelConfig model;
    assert_true(ckpt_get_model(ckpt, &model, &err));
    assert_memory_equal(&model, &tiny, sizeof tiny);
    ckpt_close(ckpt);
}

static void test_import_of_every_form(void **state) {
    static const struct Form forms[] = {
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
        write_model(folder, &forms[f]);
        if (!wan_import(folder, out, 1, &report, &err)) fail_msg("form %zu: %s", f, err.text);
        assert_string_equal(report.naming.prefix, forms[f].prefix);
        assert_int_equal(report.naming.layout, forms[f].layout);
        assert_int_equal(report.sizes_inferred, !forms[f].with_config);
        assert_int_equal(report.n_tensors, 15 + 27 * tiny.num_layers);
        check_checkpoint(out, "teacher/param");
        free(out);
        scratch_remove(folder);
    }
}

static void test_a_diffusers_pipeline_has_the_model_in_a_subfolder(void **state) {
    const struct Form form = {
        .prefix = "", .layout = WAN_DIFFUSERS, .dtype = DTYPE_F32, .with_config = true};
    struct WanImportReport report;
    struct Error err;
    char *inside = scratch_path(*state, "transformer"), *out = scratch_path(*state, "import.h5");
    assert_int_equal(mkdir(inside, 0700), 0);
    write_model(inside, &form);
    if (!wan_import(*state, out, 0, &report, &err)) fail_msg("%s", err.text);
    check_checkpoint(out, "teacher/param");
    free(inside);
    free(out);
}

static void test_spoilt_folders(void **state) {
    static const struct {
        struct Form form;
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
        write_model(folder, &cases[c].form);
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
    const struct Form form = {.prefix = "", .with_config = true};
    struct ModelConfig other = tiny;
    struct WanImportReport report;
    struct Error err;
    char *path = scratch_path(*state, "config.json"), *out = scratch_path(*state, "import.h5");
    write_model(*state, &form);
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

/* ---- checkpoints to export ---- */

static const struct {
    const char *name;
    int n_dims;
    int64_t shape[3];
} own[] = {
    {"delta_embedding.0.weight", 2, {128, 16}},
    {"fusion.gate", 1, {1}},
    {"fusion.modulation", 3, {1, 3, 128}},
};
enum { N_OWN = sizeof own / sizeof *own };

/* A student's checkpoint: the shared tensors in student/param and, twice as large, in student/ema;
 * its own in student/param.  One value of the tensor `spoilt` is 1e6. */
static char *write_student(const char *folder, bool with_own, const char *spoilt) {
    struct CkptWriter *w;
    struct Error err;
    float *data = xmalloc(MAX_ELEMS * sizeof *data);
    assert_true(ckpt_writer_open(folder, 12, "stage2", 1, &w, &err));
    for (int ema = 0; ema < 2; ema++) {
        for (int64_t i = 0; i < wan_layout_count(&tiny); i++) {
            struct WanTensor tensor = wan_layout_tensor(&tiny, WAN_ORIGINAL, i);
            int64_t n_elems = count_elems(tensor.n_dims, tensor.shape);
            fill(data, tensor.name, n_elems);
            for (int64_t e = 0; ema && e < n_elems; e++) data[e] *= 2;
            if (is(tensor.name, spoilt)) data[1] = 1e6f;
            assert_true(ckpt_write_f32(w, ema ? "student/ema" : "student/param", tensor.name,
                                       tensor.n_dims, tensor.shape, data, &err));
        }
    }
    for (int i = 0; with_own && i < N_OWN; i++) {
        fill(data, own[i].name, count_elems(own[i].n_dims, own[i].shape));
        assert_true(ckpt_write_f32(w, "student/param", own[i].name, own[i].n_dims, own[i].shape,
                                   data, &err));
    }
    free(data);
    assert_true(ckpt_set_model(w, &tiny, &err) && ckpt_set_student(w, &student, &err));
    assert_true(ckpt_writer_commit(w, &err));
    return xprintf("%s/step-00000012.h5", folder);
}

static void test_export_and_import_give_the_same_bits(void **state) {
    char *checkpoint = write_student(*state, true, NULL), *folder = scratch_path(*state, "out");
    char *back = scratch_path(*state, "back.h5");
    for (int form = 0; form < 4; form++) {
        const struct WanExportOptions options = {
            .role = "student",
            .dtype = DTYPE_F32,
            .layout = form % 2 ? WAN_DIFFUSERS : WAN_ORIGINAL,
            .max_shard_bytes = form / 2 ? 50000 : 1 << 30,
        };
        struct WanExportReport exported;
        struct WanImportReport imported;
        struct Error err;
        if (!wan_export(checkpoint, folder, &options, &exported, &err)) fail_msg("%s", err.text);
        assert_int_equal(exported.n_shared, wan_layout_count(&tiny));
        assert_int_equal(exported.n_own, N_OWN);
        if (!wan_import(folder, back, 1, &imported, &err)) fail_msg("%s", err.text);
        assert_false(imported.sizes_inferred);
        assert_int_equal(imported.naming.layout, options.layout);
        check_checkpoint(back, "teacher/param");
        scratch_remove(folder);
        folder = scratch_path(*state, "out");
    }
    free(folder);
    free(back);
    free(checkpoint);
}

static void test_an_imported_teacher_exports_again(void **state) {
    const struct Form form = {.prefix = "", .dtype = DTYPE_F32, .with_config = true};
    const struct WanExportOptions options = {
        .role = "teacher", .dtype = DTYPE_BF16, .max_shard_bytes = 1 << 30};
    struct WanExportReport exported;
    struct WanImportReport imported;
    struct Error err;
    char *checkpoint = scratch_path(*state, "a.h5"), *again = scratch_path(*state, "b.h5");
    char *folder = scratch_path(*state, "out//");
    write_model(*state, &form);
    assert_true(wan_import(*state, checkpoint, 1, &imported, &err));
    if (!wan_export(checkpoint, folder, &options, &exported, &err)) fail_msg("%s", err.text);
    if (!wan_import(folder, again, 1, &imported, &err)) fail_msg("%s", err.text);
    check_checkpoint(again, "teacher/param"); /* `fill` is exact in bfloat16 */
    free(checkpoint);
    free(again);
    free(folder);
}

static void test_the_flow_head_carries_its_recipe(void **state) {
    const struct WanExportOptions options = {
        .role = "student", .dtype = DTYPE_F32, .max_shard_bytes = 1 << 30};
    struct WanExportReport exported;
    struct Safetensors *st;
    struct Error err;
    char *checkpoint = write_student(*state, true, NULL), *folder = scratch_path(*state, "out");
    char *path = scratch_path(folder, WAN_FLOW_HEAD_FILE);
    assert_true(wan_export(checkpoint, folder, &options, &exported, &err));
    if (!safetensors_open(path, &st, &err)) fail_msg("%s", err.text);
    assert_int_equal(safetensors_count(st), N_OWN);
    float found[128 * 16], expected[128 * 16];
    for (int i = 0; i < N_OWN; i++) {
        int64_t n_elems = count_elems(own[i].n_dims, own[i].shape);
        assert_true(safetensors_read_f32(st, safetensors_find(st, own[i].name), found, &err));
        fill(expected, own[i].name, n_elems);
        assert_memory_equal(found, expected, (size_t)n_elems * sizeof *found);
    }
    assert_string_equal(safetensors_metadata(st, "tmd_outer_steps"), "2");
    assert_string_equal(safetensors_metadata(st, "tmd_inner_steps"), "4");
    assert_string_equal(safetensors_metadata(st, "tmd_head_blocks"), "1");
    assert_string_equal(safetensors_metadata(st, "tmd_outer_shift"), "10");
    assert_string_equal(safetensors_metadata(st, "tmd_inner_shift"), "5");
    assert_string_equal(safetensors_metadata(st, "tmd_t_max"), "0.999");
    assert_string_equal(safetensors_metadata(st, "tmd_fusion"), "gated");
    assert_string_equal(safetensors_metadata(st, "tmd_guidance"), "1");
    double grid[5];
    assert_int_equal(sscanf(safetensors_metadata(st, "tmd_outer_grid"), "[%lf, %lf, %lf]", &grid[0],
                            &grid[1], &grid[2]),
                     3);
    assert_true(grid[0] == 0 && fabs(grid[1] - 10.0 / 11.0) < 1e-15 && grid[2] == 0.999);
    assert_int_equal(sscanf(safetensors_metadata(st, "tmd_inner_grid"), "[%lf, %lf, %lf, %lf, %lf]",
                            &grid[0], &grid[1], &grid[2], &grid[3], &grid[4]),
                     5);
    assert_true(grid[0] == 0 && fabs(grid[1] - 0.625) < 1e-15 && fabs(grid[3] - 0.9375) < 1e-15 &&
                grid[4] == 0.999);
    safetensors_close(st);
    free(path);
    free(folder);
    free(checkpoint);
}

static void test_a_baseline_exports_its_average_and_its_recipe(void **state) {
    const struct WanExportOptions options = {
        .role = "student", .ema = true, .dtype = DTYPE_F16, .max_shard_bytes = 1 << 30};
    struct WanExportReport exported;
    struct Safetensors *st;
    struct Error err;
    char *checkpoint = write_student(*state, false, NULL), *folder = scratch_path(*state, "out");
    char *path = scratch_path(folder, WAN_FLOW_HEAD_FILE);
    if (!wan_export(checkpoint, folder, &options, &exported, &err)) fail_msg("%s", err.text);
    assert_true(safetensors_open(path, &st, &err));
    assert_int_equal(safetensors_count(st), 0);
    assert_string_equal(safetensors_metadata(st, "tmd_outer_steps"), "2");
    safetensors_close(st);

    float found[128], expected[128];
    assert_true(safetensors_open(folder, &st, &err));
    assert_true(safetensors_read_f32(st, safetensors_find(st, "blocks.1.norm3.bias"), found, &err));
    fill(expected, "blocks.1.norm3.bias", 128);
    for (int i = 0; i < 128; i++) assert_true(found[i] == 2 * expected[i]);
    safetensors_close(st);
    free(path);
    free(folder);
    free(checkpoint);
}

static void assert_export_fails(const char *checkpoint, const char *folder,
                                const struct WanExportOptions *options, const char *what) {
    struct WanExportReport exported;
    struct Error err;
    char *partial = xprintf("%s.partial", folder);
    assert_false(wan_export(checkpoint, folder, options, &exported, &err));
    if (!strstr(err.text, what)) fail_msg("'%s' does not say '%s'", err.text, what);
    assert_false(scratch_exists(partial));
    free(partial);
}

static void test_exports_that_cannot_be(void **state) {
    struct WanExportOptions options = {
        .role = "teacher", .dtype = DTYPE_F16, .max_shard_bytes = 1 << 30};
    char *checkpoint = write_student(*state, true, "blocks.1.ffn.2.weight");
    char *folder = scratch_path(*state, "out"), *file = scratch_path(*state, "file");
    assert_export_fails(file, folder, &options, file);
    assert_export_fails(checkpoint, folder, &options, "teacher/param");
    options.role = "student";
    assert_export_fails(checkpoint, folder, &options, "blocks.1.ffn.2.weight"); /* 1e6 in float16 */
    assert_false(scratch_exists(folder));
    scratch_write(file, "x", 1);
    assert_export_fails(checkpoint, file, &options, file);
    assert_export_fails(checkpoint, *state, &options, *state); /* not empty */
    assert_int_equal(scratch_count(*state, "step-00000012.h5"), 1);

    char *below = scratch_path(folder, "deeper");
    assert_export_fails(checkpoint, below, &options, below); /* no such parent */
    free(below);
    free(folder);
    free(file);
    free(checkpoint);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_import_of_every_form),
        WITH_FOLDER(test_a_diffusers_pipeline_has_the_model_in_a_subfolder),
        WITH_FOLDER(test_spoilt_folders),
        WITH_FOLDER(test_a_config_of_another_model),
        WITH_FOLDER(test_files_of_other_models),
        WITH_FOLDER(test_export_and_import_give_the_same_bits),
        WITH_FOLDER(test_an_imported_teacher_exports_again),
        WITH_FOLDER(test_the_flow_head_carries_its_recipe),
        WITH_FOLDER(test_a_baseline_exports_its_average_and_its_recipe),
        WITH_FOLDER(test_exports_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
