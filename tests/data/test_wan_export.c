/* Checkpoints into Wan folders: what is exported imports again with the same bits, and carries the
 * flow head and its recipe. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/checkpoint_model.h"
#include "data/safetensors.h"
#include "data/wan_export.h"
#include "data/wan_import.h"
#include "scratch.h"
#include "wan_fixture.h"

static const struct StudentConfig student = {
    .head_blocks = 1,
    .inner_steps = 4,
    .outer_steps = 2,
    .outer_shift = 10,
    .inner_shift = 5,
    .t_max = 0.999,
    .fusion = FUSION_GATED,
};

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
    float *data = xmalloc(WAN_TINY_MAX_ELEMS * sizeof *data);
    assert_true(ckpt_writer_open(folder, 12, "stage2", 1, &w, &err));
    for (int ema = 0; ema < 2; ema++) {
        for (int64_t i = 0; i < wan_layout_count(&wan_tiny); i++) {
            struct WanTensor tensor = wan_layout_tensor(&wan_tiny, WAN_ORIGINAL, i);
            int64_t n_elems = wan_count_elems(tensor.n_dims, tensor.shape);
            wan_fill(data, tensor.name, n_elems);
            for (int64_t e = 0; ema && e < n_elems; e++) data[e] *= 2;
            if (spoilt && strcmp(tensor.name, spoilt) == 0) data[1] = 1e6f;
            assert_true(ckpt_write_f32(w, ema ? "student/ema" : "student/param", tensor.name,
                                       tensor.n_dims, tensor.shape, data, &err));
        }
    }
    for (int i = 0; with_own && i < N_OWN; i++) {
        wan_fill(data, own[i].name, wan_count_elems(own[i].n_dims, own[i].shape));
        assert_true(ckpt_write_f32(w, "student/param", own[i].name, own[i].n_dims, own[i].shape,
                                   data, &err));
    }
    free(data);
    assert_true(ckpt_set_model(w, &wan_tiny, &err) && ckpt_set_student(w, &student, &err));
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
        assert_int_equal(exported.n_shared, wan_layout_count(&wan_tiny));
        assert_int_equal(exported.n_own, N_OWN);
        if (!wan_import(folder, back, 1, &imported, &err)) fail_msg("%s", err.text);
        assert_false(imported.sizes_inferred);
        assert_int_equal(imported.naming.layout, options.layout);
        wan_check_checkpoint(back, "teacher/param");
        scratch_remove(folder);
        folder = scratch_path(*state, "out");
    }
    free(folder);
    free(back);
    free(checkpoint);
}

static void test_an_imported_teacher_exports_again(void **state) {
    const struct WanForm form = {.prefix = "", .dtype = DTYPE_F32, .with_config = true};
    const struct WanExportOptions options = {
        .role = "teacher", .dtype = DTYPE_BF16, .max_shard_bytes = 1 << 30};
    struct WanExportReport exported;
    struct WanImportReport imported;
    struct Error err;
    char *checkpoint = scratch_path(*state, "a.h5"), *again = scratch_path(*state, "b.h5");
    char *folder = scratch_path(*state, "out//");
    wan_write_model(*state, &form);
    assert_true(wan_import(*state, checkpoint, 1, &imported, &err));
    if (!wan_export(checkpoint, folder, &options, &exported, &err)) fail_msg("%s", err.text);
    if (!wan_import(folder, again, 1, &imported, &err)) fail_msg("%s", err.text);
    wan_check_checkpoint(again, "teacher/param"); /* `wan_fill` is exact in bfloat16 */
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
        int64_t n_elems = wan_count_elems(own[i].n_dims, own[i].shape);
        assert_true(safetensors_read_f32(st, safetensors_find(st, own[i].name), found, &err));
        wan_fill(expected, own[i].name, n_elems);
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
    wan_fill(expected, "blocks.1.norm3.bias", 128);
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
        WITH_FOLDER(test_export_and_import_give_the_same_bits),
        WITH_FOLDER(test_an_imported_teacher_exports_again),
        WITH_FOLDER(test_the_flow_head_carries_its_recipe),
        WITH_FOLDER(test_a_baseline_exports_its_average_and_its_recipe),
        WITH_FOLDER(test_exports_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
