/* The master of a sharded checkpoint: made from the tables of the shards alone, whose tensors are
 * not read again. */
#include <stdlib.h>
#include <string.h>

#include "data/checkpoint_folder.h"
#include "data/checkpoint_shard_file.h"
#include "data/checkpoint_shards.h"
#include "data/checkpoint_table.h"
#include "data/checkpoint_writer_parts.h"
#include "data/h5_file.h"
#include "data/h5_virtual.h"
#include "data/shape_text.h"

/* ---- the table ---- */

/* A tensor as one shard has it. */
struct Part {
    const struct CkptTensorInfo *tensor;
    const struct CkptContents *contents; /* of the shard */
};

static const struct CkptPiece *piece_of(const struct Part *part) {
    return &part->contents->pieces[part->tensor->first_piece];
}

/* By name, then by shard. */
static int compare_parts(const void *left, const void *right) {
    const struct Part *a = left, *b = right;
    int by_group = strcmp(a->tensor->group, b->tensor->group);
    if (by_group) return by_group;
    int by_name = strcmp(a->tensor->name, b->tensor->name);
    return by_name ? by_name : piece_of(a)->shard - piece_of(b)->shard;
}

/* Every tensor of a shard is one piece, of that shard; all parts, sorted. */
static bool list_parts(const struct CkptContents *shards, int n_shards, struct Part **out,
                       int64_t *n_parts, struct Error *err) {
    int64_t n = 0;
    for (int s = 0; s < n_shards; s++) n += shards[s].n_tensors;
    struct Part *parts = xmalloc((size_t)(n + 1) * sizeof *parts);
    *out = parts;
    *n_parts = 0;
    for (int s = 0; s < n_shards; s++) {
        for (int64_t i = 0; i < shards[s].n_tensors; i++) {
            struct Part part = {&shards[s].tensors[i], &shards[s]};
            if (part.tensor->n_pieces != 1 || piece_of(&part)->shard != s)
                return error_set(err, "shard %d: its tensor %s/%s is not one piece of it", s,
                                 part.tensor->group, part.tensor->name);
            parts[(*n_parts)++] = part;
        }
    }
    qsort(parts, (size_t)n, sizeof *parts, compare_parts);
    return true;
}

static bool same_name(const struct Part *a, const struct Part *b) {
    return strcmp(a->tensor->group, b->tensor->group) == 0 &&
           strcmp(a->tensor->name, b->tensor->name) == 0;
}

static bool check_shapes(const struct Part *first, const struct Part *part, struct Error *err) {
    const struct CkptTensorInfo *a = first->tensor, *b = part->tensor;
    return shape_equal(a->n_dims, a->shape, b->n_dims, b->shape) ||
           error_set(err, "tensor %s/%s: shard %d has it in shape %s, shard %d in shape %s",
                     a->group, a->name, piece_of(first)->shard, shape_text(a->n_dims, a->shape).s,
                     piece_of(part)->shard, shape_text(b->n_dims, b->shape).s);
}

/* Joins parts of one name into one tensor. */
static bool join_parts(const struct Part *parts, int64_t n_parts, struct CkptContents *contents,
                       struct Error *err) {
    for (int64_t first = 0, i; first < n_parts; first = i) {
        const struct CkptTensorInfo *tensor = parts[first].tensor;
        ckpt_contents_add_tensor(contents, tensor->group, tensor->name, tensor->n_dims,
                                 tensor->shape);
        for (i = first; i < n_parts && same_name(&parts[first], &parts[i]); i++) {
            const struct CkptPiece *piece = piece_of(&parts[i]);
            if (!check_shapes(&parts[first], &parts[i], err)) return false;
            ckpt_contents_add_piece(contents, piece->shard, piece->begin, piece->end,
                                    parts[i].contents->chunk_crc32 + piece->first_chunk);
        }
    }
    return ckpt_table_is_whole(contents, err);
}

static bool read_shard(const struct CkptSave *save, int shard, struct CkptContents *contents,
                       struct Error *err) {
    hid_t file;
    if (!ckpt_shard_open_read(save, shard, &file, contents, err)) return false;
    H5Fclose(file);
    return true;
}

/* Adds to `contents` all tensors, as pieces of all shards. */
static bool gather_tables(const struct CkptSave *save, struct CkptContents *contents,
                          struct Error *err) {
    struct CkptContents *shards = xcalloc((size_t)save->n_shards * sizeof *shards);
    struct Part *parts = NULL;
    int64_t n_parts;
    bool read = true;
    for (int s = 0; read && s < save->n_shards; s++) read = read_shard(save, s, &shards[s], err);
    bool gathered = read && list_parts(shards, save->n_shards, &parts, &n_parts, err) &&
                    join_parts(parts, n_parts, contents, err);
    for (int s = 0; s < save->n_shards; s++) ckpt_contents_free(&shards[s]);
    free(parts);
    free(shards);
    return gathered;
}

/* ---- the file ---- */

static bool add_virtual(struct CkptWriter *w, const struct CkptTensorInfo *tensor,
                        const char *const *files, struct Error *err) {
    char *dataset = xprintf("/%s/%s", tensor->group, tensor->name);
    struct H5Source *sources = xmalloc((size_t)tensor->n_pieces * sizeof *sources);
    for (int64_t p = 0; p < tensor->n_pieces; p++) {
        const struct CkptPiece *piece = &w->contents.pieces[tensor->first_piece + p];
        sources[p] = (struct H5Source){files[piece->shard], dataset, piece->begin, piece->end};
    }
    bool added = ckpt_writer_select_group(w, tensor->group, err) &&
                 h5_virtual_create(w->group, tensor->name, tensor->n_dims, tensor->shape,
                                   tensor->n_pieces, sources, err) &&
                 h5_check_written(w->file, w->partial, err);
    free(sources);
    free(dataset);
    return added;
}

static bool add_tensors(struct CkptWriter *w, const struct CkptSave *save, struct Error *err) {
    char **files = xmalloc((size_t)save->n_shards * sizeof *files);
    for (int s = 0; s < save->n_shards; s++) files[s] = ckpt_shard_relative_path(save, s);
    bool added = true;
    for (int64_t i = 0; added && i < w->contents.n_tensors; i++)
        added = add_virtual(w, &w->contents.tensors[i], (const char *const *)files, err);
    for (int s = 0; s < save->n_shards; s++) free(files[s]);
    free(files);
    return added;
}

bool ckpt_master_open(const struct CkptSave *save, struct CkptWriter **out, struct Error *err) {
    const struct CkptHeader header = {CKPT_FORMAT, CKPT_VERSION_SHARDED, save->iteration,
                                      save->stage};
    char *path = ckpt_step_path(save->folder, save->iteration);
    bool opened = ckpt_writer_create(path, &header, save->zstd_level, out, err);
    free(path);
    if (!opened) return false;
    if (ckpt_set_int(*out, CKPT_KEY_SAVE_ID, save->id, err) &&
        ckpt_set_int(*out, CKPT_KEY_SHARDS, save->n_shards, err) &&
        gather_tables(save, &(*out)->contents, err) && add_tensors(*out, save, err))
        return true;
    ckpt_writer_abandon(*out);
    return false;
}
