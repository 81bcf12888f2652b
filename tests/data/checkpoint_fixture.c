#include "checkpoint_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/checkpoint_folder.h"
#include "data/checkpoint_writer.h"

const struct SmallCkptTensor small_ckpt_tensors[SMALL_CKPT_TENSORS] = {
    {"student/param", "blocks.0.self_attn.q.weight", 2, {6, 5}},
    {"student/param", "fusion.gate", 1, {9}},
    {"student/adam_m", "blocks.0.self_attn.q.weight", 2, {6, 5}},
    {"fake/param", "patch_embedding.weight", 4, {4, 2, 1, 3}},
    {"student/ema", "head.head.weight", 2, {150, 160}}, /* 96,000 bytes: chunked */
};

int64_t small_ckpt_elems(int t) {
    int64_t n = 1;
    for (int d = 0; d < small_ckpt_tensors[t].n_dims; d++) n *= small_ckpt_tensors[t].shape[d];
    return n;
}

void small_ckpt_fill(float *out, int t, int64_t iteration) {
    for (int64_t i = 0; i < small_ckpt_elems(t); i++)
        out[i] = (float)(iteration + 1) * 0.25f + (float)(i % 97) * 0.5f - (float)t;
}

bool small_ckpt_write(const char *folder, int64_t iteration, int level, struct Error *err) {
    static const char yaml[] = "model:\n  dim: 36\n";
    struct CkptWriter *w;
    float *data = xmalloc(SMALL_CKPT_MAX_ELEMS * sizeof *data);
    bool written = ckpt_writer_open(folder, iteration, "stage1", level, &w, err);
    bool opened = written;
    for (int t = 0; written && t < SMALL_CKPT_TENSORS; t++) {
        small_ckpt_fill(data, t, iteration);
        written =
            ckpt_write_f32(w, small_ckpt_tensors[t].group, small_ckpt_tensors[t].name,
                           small_ckpt_tensors[t].n_dims, small_ckpt_tensors[t].shape, data, err);
    }
    free(data);
    written = written && ckpt_set_text(w, CKPT_KEY_CONFIG, yaml, err) &&
              ckpt_set_int(w, "data.position", INT64_C(9007199254740993), err) &&
              ckpt_set_real(w, "loss.mean", 0.1, err) && ckpt_set_text(w, "empty", "", err);
    if (written) return ckpt_writer_commit(w, err);
    if (opened) ckpt_writer_abandon(w);
    return false;
}

char *small_ckpt_make(const char *folder, int64_t iteration, int level) {
    struct Error err;
    if (!small_ckpt_write(folder, iteration, level, &err)) fail_msg("%s", err.text);
    return ckpt_step_path(folder, iteration);
}

bool small_ckpt_read(const char *path, int64_t iteration, struct Error *err) {
    struct Ckpt *ckpt;
    if (!ckpt_open(path, &ckpt, err)) return false;
    bool good = ckpt_verify(ckpt, err);
    float *found = xmalloc(SMALL_CKPT_MAX_ELEMS * sizeof *found),
          *expected = xmalloc(SMALL_CKPT_MAX_ELEMS * sizeof *found);
    for (int t = 0; good && t < SMALL_CKPT_TENSORS; t++) {
        small_ckpt_fill(expected, t, iteration);
        good = ckpt_read_f32(ckpt, small_ckpt_tensors[t].group, small_ckpt_tensors[t].name,
                             small_ckpt_tensors[t].n_dims, small_ckpt_tensors[t].shape, false,
                             found, err);
        if (good) assert_memory_equal(found, expected, (size_t)small_ckpt_elems(t) * sizeof *found);
    }
    free(expected);
    free(found);
    if (good) {
        int64_t position;
        double loss;
        const char *yaml;
        assert_int_equal(ckpt_iteration(ckpt), iteration);
        assert_string_equal(ckpt_stage(ckpt), "stage1");
        assert_int_equal(ckpt_count(ckpt), SMALL_CKPT_TENSORS);
        assert_int_equal(ckpt_value_count(ckpt), 4);
        assert_true(ckpt_get_int(ckpt, "data.position", &position, err));
        assert_true(position == INT64_C(9007199254740993));
        assert_true(ckpt_get_real(ckpt, "loss.mean", &loss, err));
        assert_true(loss == 0.1);
        assert_true(ckpt_get_text(ckpt, CKPT_KEY_CONFIG, &yaml, err));
        assert_string_equal(yaml, "model:\n  dim: 36\n");
        assert_true(ckpt_get_text(ckpt, "empty", &yaml, err));
        assert_string_equal(yaml, "");
    }
    ckpt_close(ckpt);
    return good;
}

void assert_names(const struct Error *err, const char *what) {
    if (!strstr(err->text, what)) fail_msg("'%s' does not name '%s'", err->text, what);
    assert_null(strchr(err->text, '\n'));
}
