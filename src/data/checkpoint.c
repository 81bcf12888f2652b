/* Opens checkpoints, answers what is in them, reads their tensors. */
#include "data/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "data/atomic_file.h"
#include "data/checkpoint_contents.h"
#include "data/checkpoint_pieces.h"
#include "data/checkpoint_table.h"
#include "data/checkpoint_walk.h"
#include "data/h5_file.h"
#include "data/shape_text.h"

struct Ckpt {
    char *path;
    hid_t file;
    int64_t iteration;
    char *stage;
    struct CkptContents contents; /* without the values of the format itself */
    struct CkptPieces *pieces;    /* of a sharded checkpoint, or NULL */
    struct CkptReading *reading;  /* empty between calls */
    int n_shards;
    char *folder; /* where the shards' folder lies */
};

/* ---- opening ---- */

/* A user may well try a file that lies beside the one that is meant. */
static bool refuse_shard(const struct CkptContents *contents, struct Error *err) {
    const struct CkptValue *format = ckpt_contents_find_value(contents, CKPT_KEY_FORMAT);
    if (!format || format->kind != CKPT_TEXT || strcmp(format->text, CKPT_SHARD_FORMAT) != 0)
        return true;
    return error_set(err, "is one shard of a checkpoint: open the step-*.h5 beside its folder");
}

/* The table of a master, and the numbers from which the names of its shards follow. */
static bool read_master(struct Ckpt *ckpt, struct Error *err) {
    struct CkptSave save = {.iteration = ckpt->iteration, .stage = ckpt->stage};
    int64_t n_shards;
    if (!ckpt_own_int(&ckpt->contents, CKPT_KEY_SHARDS, &n_shards, err) ||
        !ckpt_own_int(&ckpt->contents, CKPT_KEY_SAVE_ID, &save.id, err))
        return false;
    if (n_shards < 1 || n_shards > CKPT_MAX_SHARDS)
        return error_set(err, "expected 1 to %d shards, got %lld", CKPT_MAX_SHARDS,
                         (long long)n_shards);
    save.n_shards = ckpt->n_shards = (int)n_shards;
    save.folder = ckpt->folder = path_folder(ckpt->path);
    ckpt->pieces = ckpt_pieces_open(&save);
    return ckpt_table_read(ckpt->file, n_shards, &ckpt->contents, err) &&
           ckpt_table_is_whole(&ckpt->contents, err);
}

/* Takes the values of the format itself out of the list that users see. */
static void take_out_own_values(struct CkptContents *contents) {
    static const char *const own[] = {CKPT_KEY_FORMAT, CKPT_KEY_VERSION, CKPT_KEY_ITERATION,
                                      CKPT_KEY_STAGE,  CKPT_KEY_SAVE_ID, CKPT_KEY_SHARDS};
    int64_t n = 0;
    for (int64_t i = 0; i < contents->n_values; i++) {
        struct CkptValue *value = &contents->values[i];
        bool is_own = false;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            is_own |= strcmp(value->key, own[k]) == 0;
        if (is_own) {
            free((char *)value->key);
            free((char *)value->text);
        } else {
            contents->values[n++] = *value;
        }
    }
    contents->n_values = n;
}

static bool read_contents(struct Ckpt *ckpt, struct Error *err) {
    struct CkptContents *contents = &ckpt->contents;
    int64_t version;
    const char *stage;
    if (!ckpt_walk_values(ckpt->file, contents, err) || !refuse_shard(contents, err) ||
        !ckpt_check_format(ckpt->file, contents, CKPT_FORMAT, &version, err) ||
        !ckpt_own_int(contents, CKPT_KEY_ITERATION, &ckpt->iteration, err) ||
        !ckpt_own_text(contents, CKPT_KEY_STAGE, &stage, err))
        return false;
    ckpt->stage = xstrdup(stage);
    bool read = version == CKPT_VERSION_SHARDED ? read_master(ckpt, err)
                                                : ckpt_walk_tensors(ckpt->file, contents, err);
    if (!read || !ckpt_check_manifest(ckpt->file, contents, err)) return false;
    take_out_own_values(contents);
    return true;
}

bool ckpt_open(const char *path, struct Ckpt **out, struct Error *err) {
    struct Ckpt *ckpt = xcalloc(sizeof *ckpt);
    ckpt->path = xstrdup(path);
    ckpt->reading = ckpt_reading_create();
    if (!h5_open_read(path, &ckpt->file, err)) {
        ckpt_close(ckpt);
        return false;
    }
    if (!read_contents(ckpt, err)) {
        ckpt_close(ckpt);
        return error_prefix(err, "checkpoint %s", path);
    }
    *out = ckpt;
    return true;
}

void ckpt_close(struct Ckpt *ckpt) {
    if (!ckpt) return;
    if (ckpt->file > 0) H5Fclose(ckpt->file);
    ckpt_pieces_close(ckpt->pieces);
    ckpt_reading_destroy(ckpt->reading);
    ckpt_contents_free(&ckpt->contents);
    free(ckpt->folder);
    free(ckpt->stage);
    free(ckpt->path);
    free(ckpt);
}

/* ---- what is in it ---- */

const char *ckpt_path(const struct Ckpt *ckpt) {
    return ckpt->path;
}

int64_t ckpt_iteration(const struct Ckpt *ckpt) {
    return ckpt->iteration;
}

const char *ckpt_stage(const struct Ckpt *ckpt) {
    return ckpt->stage;
}

int ckpt_shard_count(const struct Ckpt *ckpt) {
    return ckpt->n_shards;
}

int64_t ckpt_value_count(const struct Ckpt *ckpt) {
    return ckpt->contents.n_values;
}

const struct CkptValue *ckpt_value(const struct Ckpt *ckpt, int64_t i) {
    TMD_CHECK(i >= 0 && i < ckpt->contents.n_values, "value %lld", (long long)i);
    return &ckpt->contents.values[i];
}

bool ckpt_has(const struct Ckpt *ckpt, const char *key) {
    return ckpt_contents_find_value(&ckpt->contents, key) != NULL;
}

static const struct CkptValue *get_value(const struct Ckpt *ckpt, const char *key,
                                         enum CkptKind kind, struct Error *err) {
    static const char *const kinds[] = {"an integer", "a number", "a text"};
    const struct CkptValue *value = ckpt_contents_find_value(&ckpt->contents, key);
    if (!value) {
        error_set(err, "checkpoint %s: has no value '%s'", ckpt->path, key);
    } else if (value->kind != kind) {
        error_set(err, "checkpoint %s: value '%s' is %s, not %s", ckpt->path, key,
                  kinds[value->kind], kinds[kind]);
        value = NULL;
    }
    return value;
}

bool ckpt_get_int(const struct Ckpt *ckpt, const char *key, int64_t *value, struct Error *err) {
    const struct CkptValue *found = get_value(ckpt, key, CKPT_INT, err);
    if (found) *value = found->integer;
    return found != NULL;
}

bool ckpt_get_real(const struct Ckpt *ckpt, const char *key, double *value, struct Error *err) {
    const struct CkptValue *found = get_value(ckpt, key, CKPT_REAL, err);
    if (found) *value = found->real;
    return found != NULL;
}

bool ckpt_get_text(const struct Ckpt *ckpt, const char *key, const char **text, struct Error *err) {
    const struct CkptValue *found = get_value(ckpt, key, CKPT_TEXT, err);
    if (found) *text = found->text;
    return found != NULL;
}

int64_t ckpt_count(const struct Ckpt *ckpt) {
    return ckpt->contents.n_tensors;
}

const struct CkptTensorInfo *ckpt_info(const struct Ckpt *ckpt, int64_t i) {
    TMD_CHECK(i >= 0 && i < ckpt->contents.n_tensors, "tensor %lld", (long long)i);
    return &ckpt->contents.tensors[i];
}

int64_t ckpt_find(const struct Ckpt *ckpt, const char *group, const char *name) {
    return ckpt_contents_find_tensor(&ckpt->contents, group, name);
}

int64_t ckpt_group(const struct Ckpt *ckpt, const char *group, int64_t *first) {
    int64_t n = 0;
    for (int64_t i = 0; i < ckpt->contents.n_tensors; i++) {
        if (strcmp(ckpt->contents.tensors[i].group, group) != 0) continue;
        if (n++ == 0) *first = i;
    }
    return n;
}

/* ---- reading ---- */

/* A tensor that lies in the checkpoint's own file. */
static bool add_own(struct Ckpt *ckpt, const struct CkptTensorInfo *tensor,
                    const struct CkptRange *range, struct Error *err) {
    struct H5Array array = {0};
    struct CkptSums sums = {0};
    if (range->begin == 0 && range->end == tensor->n_elems) sums.whole = &tensor->crc32;
    char *name = xprintf("%s/%s", tensor->group, tensor->name);
    char *where = xprintf("tensor %s", name);
    bool added = h5_array_open(ckpt->file, name, &array, err) || error_prefix(err, "%s", where);
    added = added && ckpt_reading_add(ckpt->reading, &array, range, sums, where, err);
    h5_array_close(&array);
    free(where);
    free(name);
    return added;
}

static bool add_tensor(struct Ckpt *ckpt, const struct CkptTensorInfo *tensor,
                       const struct CkptRange *range, struct Error *err) {
    return ckpt->pieces ? ckpt_pieces_add(ckpt->pieces, &ckpt->contents, tensor, range,
                                          ckpt->reading, err)
                        : add_own(ckpt, tensor, range, err);
}

/* Reads what was added, unless adding failed. */
static bool finish_reading(struct Ckpt *ckpt, bool added, struct Error *err) {
    if (added && ckpt_reading_run(ckpt->reading, err)) return true;
    ckpt_reading_clear(ckpt->reading);
    return error_prefix(err, "checkpoint %s", ckpt->path);
}

/* The tensor of that name and shape, or NULL. */
static const struct CkptTensorInfo *find_tensor(const struct Ckpt *ckpt, const char *group,
                                                const char *name, int n_dims, const int64_t *shape,
                                                struct Error *err) {
    int64_t i = ckpt_find(ckpt, group, name);
    const struct CkptTensorInfo *tensor = i < 0 ? NULL : ckpt_info(ckpt, i);
    if (!tensor) {
        error_set(err, "has no tensor %s/%s", group, name);
    } else if (!shape_equal(n_dims, shape, tensor->n_dims, tensor->shape)) {
        error_set(err, "tensor %s/%s: expected shape %s, got %s", group, name,
                  shape_text(n_dims, shape).s, shape_text(tensor->n_dims, tensor->shape).s);
        tensor = NULL;
    }
    return tensor;
}

static bool add_wanted(struct Ckpt *ckpt, const struct CkptWanted *wanted, bool allow_nonfinite,
                       struct Error *err) {
    const struct CkptTensorInfo *tensor =
        find_tensor(ckpt, wanted->group, wanted->name, wanted->n_dims, wanted->shape, err);
    struct CkptRange range = {wanted->begin, wanted->end, allow_nonfinite, wanted->out};
    if (!tensor) return false;
    TMD_CHECK(0 <= range.begin && range.begin <= range.end && range.end <= tensor->n_elems,
              "elements %lld to %lld of %lld", (long long)range.begin, (long long)range.end,
              (long long)tensor->n_elems);
    return range.begin == range.end || add_tensor(ckpt, tensor, &range, err);
}

bool ckpt_read_ranges_f32(struct Ckpt *ckpt, int64_t n, const struct CkptWanted *wanted,
                          bool allow_nonfinite, struct Error *err) {
    bool added = true;
    for (int64_t i = 0; added && i < n; i++)
        added = add_wanted(ckpt, &wanted[i], allow_nonfinite, err);
    return finish_reading(ckpt, added, err);
}

bool ckpt_read_range_f32(struct Ckpt *ckpt, const char *group, const char *name, int n_dims,
                         const int64_t *shape, int64_t begin, int64_t end, bool allow_nonfinite,
                         float *out, struct Error *err) {
    struct CkptWanted wanted = {group, name, n_dims, shape, begin, end, out};
    return ckpt_read_ranges_f32(ckpt, 1, &wanted, allow_nonfinite, err);
}

bool ckpt_read_f32(struct Ckpt *ckpt, const char *group, const char *name, int n_dims,
                   const int64_t *shape, bool allow_nonfinite, float *out, struct Error *err) {
    int64_t n_elems = 1;
    for (int d = 0; d < n_dims; d++) n_elems *= shape[d];
    return ckpt_read_range_f32(ckpt, group, name, n_dims, shape, 0, n_elems, allow_nonfinite, out,
                               err);
}

/* Reads tensors to nowhere, some gigabytes at a time; leaves the last of them to be read.  A tensor
 * belongs to the part in which its middle lies. */
static bool check_tensors(struct Ckpt *ckpt, int part, int n_parts, struct Error *err) {
    enum { BLOCKS_AT_A_TIME = 10000 };
    double n_before = 0, n_elems = 0;
    for (int64_t i = 0; i < ckpt_count(ckpt); i++) n_elems += (double)ckpt_info(ckpt, i)->n_elems;
    for (int64_t i = 0; i < ckpt_count(ckpt); i++) {
        const struct CkptTensorInfo *tensor = ckpt_info(ckpt, i);
        struct CkptRange range = {.end = tensor->n_elems, .allow_nonfinite = true};
        double middle = n_before + 0.5 * (double)tensor->n_elems;
        n_before += (double)tensor->n_elems;
        if ((int)(middle / n_elems * n_parts) != part) continue;
        if (ckpt_reading_blocks(ckpt->reading) >= BLOCKS_AT_A_TIME &&
            !ckpt_reading_run(ckpt->reading, err))
            return false;
        if (!add_tensor(ckpt, tensor, &range, err)) return false;
    }
    return true;
}

bool ckpt_verify_part(struct Ckpt *ckpt, int part, int n_parts, struct Error *err) {
    bool added = (!ckpt->pieces || ckpt_pieces_check(ckpt->pieces, part, n_parts, err)) &&
                 check_tensors(ckpt, part, n_parts, err);
    return finish_reading(ckpt, added, err);
}

bool ckpt_verify(struct Ckpt *ckpt, struct Error *err) {
    return ckpt_verify_part(ckpt, 0, 1, err);
}
