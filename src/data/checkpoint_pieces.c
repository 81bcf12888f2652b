/* Keeps the files of shards open, and spreads a range over the pieces that it touches. */
#include "data/checkpoint_pieces.h"

#include <stdlib.h>

#include "data/checkpoint_shard_file.h"

/* Files stay open, but not so many that descriptors run out. */
enum { MAX_OPEN = 64 };

struct CkptPieces {
    struct CkptSave save;
    hid_t *files;       /* [save.n_shards], H5I_INVALID_HID: closed */
    int open[MAX_OPEN]; /* which shards are open, */
    int64_t n_opened;   /* and how many ever were: shard open[i % MAX_OPEN] was the i-th */
};

struct CkptPieces *ckpt_pieces_open(const struct CkptSave *save) {
    struct CkptPieces *pieces = xcalloc(sizeof *pieces);
    pieces->save = *save;
    pieces->files = xmalloc((size_t)save->n_shards * sizeof *pieces->files);
    for (int i = 0; i < save->n_shards; i++) pieces->files[i] = H5I_INVALID_HID;
    return pieces;
}

void ckpt_pieces_close(struct CkptPieces *pieces) {
    if (!pieces) return;
    for (int i = 0; i < pieces->save.n_shards; i++)
        if (pieces->files[i] >= 0) H5Fclose(pieces->files[i]);
    free(pieces->files);
    free(pieces);
}

/* Whether opening a shard closes another. */
static bool needs_room(const struct CkptPieces *pieces, int shard) {
    return pieces->files[shard] < 0 && pieces->n_opened >= MAX_OPEN;
}

/* Opens a shard in the place of the one that was opened longest ago. */
static bool need_shard(struct CkptPieces *pieces, int shard, struct Error *err) {
    if (pieces->files[shard] >= 0) return true;
    hid_t file;
    if (!ckpt_shard_open_read(&pieces->save, shard, &file, NULL, err)) return false;
    int *slot = &pieces->open[pieces->n_opened % MAX_OPEN];
    if (needs_room(pieces, shard)) {
        H5Fclose(pieces->files[*slot]);
        pieces->files[*slot] = H5I_INVALID_HID;
    }
    *slot = shard;
    pieces->files[shard] = file;
    pieces->n_opened++;
    return true;
}

/* A piece is a list of float32, cut into chunks as ckpt_piece_chunks says. */
static bool check_array(const struct H5Array *array, int64_t n_elems, struct Error *err) {
    int64_t chunk = ckpt_chunk_rows(n_elems, sizeof(float));
    if (array->element == DTYPE_F32 && array->rank == 1 && array->n_rows == n_elems &&
        array->chunk_rows == chunk)
        return true;
    return error_set(err,
                     "expected float32 [%lld] in chunks of %lld, got %d dimensions, %lld rows in "
                     "chunks of %lld",
                     (long long)n_elems, (long long)chunk, array->rank, (long long)array->n_rows,
                     (long long)array->chunk_rows);
}

/* The part of the range that lies in the piece. */
static bool add_piece(struct CkptPieces *pieces, const struct CkptPiece *piece,
                      const uint32_t *chunk_crc32, const char *name, const struct CkptRange *range,
                      struct CkptReading *reading, struct Error *err) {
    struct CkptRange own = *range;
    struct H5Array array = {0};
    own.begin = (piece->begin > range->begin ? piece->begin : range->begin) - piece->begin;
    own.end = (piece->end < range->end ? piece->end : range->end) - piece->begin;
    if (own.out) own.out += piece->begin + own.begin - range->begin;
    if (needs_room(pieces, piece->shard) && !ckpt_reading_run(reading, err)) return false;
    if (!need_shard(pieces, piece->shard, err)) return error_prefix(err, "tensor %s", name);
    char *path = ckpt_shard_path(&pieces->save, piece->shard);
    char *where = xprintf("tensor %s: shard %s", name, path);
    bool added = (h5_array_open(pieces->files[piece->shard], name, &array, err) &&
                  check_array(&array, piece->end - piece->begin, err)) ||
                 error_prefix(err, "%s", where);
    added = added && ckpt_reading_add(reading, &array, &own,
                                      (struct CkptSums){.blocks = chunk_crc32}, where, err);
    h5_array_close(&array);
    free(where);
    free(path);
    return added;
}

bool ckpt_pieces_add(struct CkptPieces *pieces, const struct CkptContents *contents,
                     const struct CkptTensorInfo *tensor, const struct CkptRange *range,
                     struct CkptReading *reading, struct Error *err) {
    char *name = xprintf("%s/%s", tensor->group, tensor->name);
    bool added = true;
    for (int64_t p = 0; added && p < tensor->n_pieces; p++) {
        const struct CkptPiece *piece = &contents->pieces[tensor->first_piece + p];
        if (piece->begin < range->end && piece->end > range->begin)
            added = add_piece(pieces, piece, contents->chunk_crc32 + piece->first_chunk, name,
                              range, reading, err);
    }
    free(name);
    return added;
}

bool ckpt_pieces_check(struct CkptPieces *pieces, int part, int n_parts, struct Error *err) {
    for (int shard = part; shard < pieces->save.n_shards; shard += n_parts)
        if (!need_shard(pieces, shard, err)) return false;
    return true;
}
