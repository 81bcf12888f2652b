/* The shard of one rank. */
#include "data/checkpoint_shards.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "data/atomic_file.h"
#include "data/checkpoint_folder.h"
#include "data/checkpoint_shard_file.h"
#include "data/checkpoint_writer_parts.h"
#include "data/crc32.h"

int64_t ckpt_save_id(void) {
    uint64_t bits;
    TMD_CHECK(getrandom(&bits, sizeof bits, 0) == sizeof bits, "no random numbers");
    return (int64_t)(bits >> 1);
}

/* The folder of the shards must be on the disk before the master is, not only its contents. */
static bool make_folder(const struct CkptSave *save, struct Error *err) {
    char *name = ckpt_shards_name(save->iteration, save->id);
    char *path = xprintf("%s/%s", save->folder, name);
    bool made = mkdir(path, 0777) == 0 || errno == EEXIST;
    if (!made) error_set(err, "%s: cannot be created: %s", path, strerror(errno));
    free(path);
    free(name);
    return made && folder_sync(save->folder, err);
}

bool ckpt_shard_open(const struct CkptSave *save, int shard, struct CkptWriter **out,
                     struct Error *err) {
    TMD_CHECK(0 <= shard && shard < save->n_shards && save->n_shards <= CKPT_MAX_SHARDS,
              "shard %d of %d", shard, save->n_shards);
    const struct CkptHeader header = {CKPT_SHARD_FORMAT, CKPT_VERSION_SHARDED, save->iteration,
                                      save->stage};
    if (shard == 0) ckpt_folder_sweep(save->folder, save->id);
    if (!make_folder(save, err)) return false;
    char *path = ckpt_shard_path(save, shard);
    bool opened = ckpt_writer_create(path, &header, save->zstd_level, out, err);
    free(path);
    if (!opened) return false;
    (*out)->shard = shard;
    if (ckpt_set_int(*out, CKPT_KEY_SAVE_ID, save->id, err) &&
        ckpt_set_int(*out, CKPT_KEY_SHARDS, save->n_shards, err) &&
        ckpt_set_int(*out, CKPT_KEY_SHARD, shard, err))
        return true;
    ckpt_writer_abandon(*out);
    return false;
}

static uint32_t *sum_up_chunks(const float *data, int64_t n_elems) {
    int64_t chunk = ckpt_piece_chunk_elems(n_elems), n_chunks = ckpt_piece_chunks(n_elems);
    uint32_t *crc32 = xmalloc((size_t)n_chunks * sizeof *crc32);
    for (int64_t i = 0; i < n_chunks; i++) {
        int64_t left = n_elems - i * chunk, n = left < chunk ? left : chunk;
        crc32[i] = crc32_after(0, data + i * chunk, n * (int64_t)sizeof *data);
    }
    return crc32;
}

bool ckpt_shard_write_f32(struct CkptWriter *w, const char *group, const char *name, int n_dims,
                          const int64_t *shape, int64_t begin, int64_t end, const float *data,
                          struct Error *err) {
    ckpt_writer_check_tensor(name, n_dims, shape);
    int64_t n_elems = 1, n_own = end - begin;
    for (int d = 0; d < n_dims; d++) n_elems *= shape[d];
    TMD_CHECK(0 <= begin && begin <= end && end <= n_elems, "tensor '%s': elements %lld to %lld",
              name, (long long)begin, (long long)end);
    if (n_own == 0) return true;
    if (!ckpt_writer_select_group(w, group, err)) return false;
    uint32_t *chunk_crc32 = sum_up_chunks(data, n_own);
    ckpt_contents_add_tensor(&w->contents, group, name, n_dims, shape);
    ckpt_contents_add_piece(&w->contents, w->shard, begin, end, chunk_crc32);
    free(chunk_crc32);
    return ckpt_writer_add_array(w, name, 1, &n_own, data, NULL, err);
}

void ckpt_save_abandon(const struct CkptSave *save) {
    ckpt_shards_remove(save->folder, save->iteration, save->id);
}
