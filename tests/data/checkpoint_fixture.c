/* Values are functions of tensor, element and iteration, so that every test can tell what must come
 * back. */
#include "checkpoint_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/checkpoint_folder.h"

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

/* The values of the checkpoint, and its commit. */
static bool finish(struct CkptWriter *w, struct Error *err) {
    static const char yaml[] = "model:\n  dim: 36\n";
    if (ckpt_set_text(w, CKPT_KEY_CONFIG, yaml, err) &&
        ckpt_set_int(w, "data.position", INT64_C(9007199254740993), err) &&
        ckpt_set_real(w, "loss.mean", 0.1, err) && ckpt_set_text(w, "empty", "", err))
        return ckpt_writer_commit(w, err);
    ckpt_writer_abandon(w);
    return false;
}

bool small_ckpt_write(const char *folder, int64_t iteration, int level, struct Error *err) {
    struct CkptWriter *w;
    if (!ckpt_writer_open(folder, iteration, "stage1", level, &w, err)) return false;
    float *data = xmalloc(SMALL_CKPT_MAX_ELEMS * sizeof *data);
    bool written = true;
    for (int t = 0; written && t < SMALL_CKPT_TENSORS; t++) {
        small_ckpt_fill(data, t, iteration);
        written =
            ckpt_write_f32(w, small_ckpt_tensors[t].group, small_ckpt_tensors[t].name,
                           small_ckpt_tensors[t].n_dims, small_ckpt_tensors[t].shape, data, err);
    }
    free(data);
    if (written) return finish(w, err);
    ckpt_writer_abandon(w);
    return false;
}

char *small_ckpt_make(const char *folder, int64_t iteration, int level) {
    struct Error err;
    if (!small_ckpt_write(folder, iteration, level, &err)) fail_msg("%s", err.text);
    return ckpt_step_path(folder, iteration);
}

struct CkptSave small_ckpt_save(const char *folder, int64_t iteration, int level, int n_shards) {
    return (struct CkptSave){folder, iteration, "stage1", ckpt_save_id(), n_shards, level};
}

/* Where the part of shard s begins; s = n_shards: where the last one ends. */
static int64_t cut(int t, int s, int n_shards) {
    int64_t n_elems = small_ckpt_elems(t);
    if (s == 0 || s == n_shards) return s ? n_elems : 0;
    return n_elems * (s - 1) / (n_shards + t); /* the last shard has most */
}

bool small_ckpt_write_shard(const struct CkptSave *save, int shard, struct Error *err) {
    struct CkptWriter *w;
    if (!ckpt_shard_open(save, shard, &w, err)) return false;
    float *data = xmalloc(SMALL_CKPT_MAX_ELEMS * sizeof *data);
    bool written = true;
    for (int t = 0; written && t < SMALL_CKPT_TENSORS; t++) {
        const struct SmallCkptTensor *tensor = &small_ckpt_tensors[t];
        int64_t begin = cut(t, shard, save->n_shards), end = cut(t, shard + 1, save->n_shards);
        small_ckpt_fill(data, t, save->iteration);
        written = ckpt_shard_write_f32(w, tensor->group, tensor->name, tensor->n_dims,
                                       tensor->shape, begin, end, data + begin, err);
    }
    free(data);
    if (written) return ckpt_writer_commit(w, err);
    ckpt_writer_abandon(w);
    return false;
}

bool small_ckpt_write_master(const struct CkptSave *save, struct Error *err) {
    struct CkptWriter *w;
    return ckpt_master_open(save, &w, err) && finish(w, err);
}

bool small_ckpt_write_sharded(const struct CkptSave *save, struct Error *err) {
    bool written = true;
    for (int s = 0; written && s < save->n_shards; s++)
        written = small_ckpt_write_shard(save, s, err);
    written = written && small_ckpt_write_master(save, err);
    if (!written) ckpt_save_abandon(save);
    return written;
}

char *small_ckpt_make_sharded(const struct CkptSave *save) {
    struct Error err;
    if (!small_ckpt_write_sharded(save, &err)) fail_msg("%s", err.text);
    return ckpt_step_path(save->folder, save->iteration);
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
