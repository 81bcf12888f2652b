/* A shard's name follows from numbers; what the file says of itself must agree with them. */
#include "data/checkpoint_shard_file.h"

#include <stdlib.h>
#include <string.h>

#include "data/checkpoint_folder.h"
#include "data/checkpoint_table.h"
#include "data/checkpoint_walk.h"
#include "data/h5_file.h"

char *ckpt_shard_relative_path(const struct CkptSave *save, int shard) {
    char *folder = ckpt_shards_name(save->iteration, save->id);
    char *path = xprintf("%s/rank-%03d-of-%03d.h5", folder, shard, save->n_shards);
    free(folder);
    return path;
}

char *ckpt_shard_path(const struct CkptSave *save, int shard) {
    char *relative = ckpt_shard_relative_path(save, shard);
    char *path = xprintf("%s/%s", save->folder, relative);
    free(relative);
    return path;
}

static bool check_int(const struct CkptContents *contents, const char *key, int64_t expected,
                      struct Error *err) {
    int64_t found;
    return ckpt_own_int(contents, key, &found, err) &&
           (found == expected || error_set(err, "expected %s %lld, got %lld", key,
                                           (long long)expected, (long long)found));
}

/* The values in a shard must be those of the save. */
static bool check_values(hid_t file, const struct CkptSave *save, int shard,
                         const struct CkptContents *contents, struct Error *err) {
    int64_t version;
    const char *stage;
    if (!ckpt_check_format(file, contents, CKPT_SHARD_FORMAT, &version, err) ||
        !check_int(contents, CKPT_KEY_ITERATION, save->iteration, err) ||
        !check_int(contents, CKPT_KEY_SAVE_ID, save->id, err) ||
        !check_int(contents, CKPT_KEY_SHARDS, save->n_shards, err) ||
        !check_int(contents, CKPT_KEY_SHARD, shard, err) ||
        !ckpt_own_text(contents, CKPT_KEY_STAGE, &stage, err))
        return false;
    return strcmp(stage, save->stage) == 0 ||
           error_set(err, "expected stage %s, got %s", save->stage, stage);
}

bool ckpt_shard_open_read(const struct CkptSave *save, int shard, hid_t *file,
                          struct CkptContents *contents, struct Error *err) {
    char *path = ckpt_shard_path(save, shard);
    struct CkptContents values = {0}, *found = contents ? contents : &values;
    bool opened = h5_open_read(path, file, err);
    if (opened) {
        bool good =
            ckpt_walk_values(*file, found, err) && check_values(*file, save, shard, found, err);
        if (good && contents)
            good = ckpt_table_read(*file, save->n_shards, contents, err) &&
                   ckpt_check_manifest(*file, contents, err);
        if (!good) {
            H5Fclose(*file);
            *file = H5I_INVALID_HID;
            opened = error_prefix(err, "shard %s", path);
        }
    } else {
        error_prefix(err, "shard %d of %d", shard, save->n_shards);
    }
    ckpt_contents_free(&values);
    free(path);
    return opened;
}
