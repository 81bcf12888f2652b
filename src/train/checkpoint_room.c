/* Counts the floats that a checkpoint holds, and asks the file system for free bytes. */
#include "train/checkpoint_room.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "data/checkpoint_folder.h"

static int64_t bytes_to_save(const struct Networks *nets) {
    int64_t n_floats = 0;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.trained[role]) continue;
        int n_buffers = nets->plan.ema && role == (int)nets->plan.main ? 4 : 3;
        n_floats += n_buffers * networks_table(nets, (enum Role)role)->n_parameters;
    }
    return n_floats * (int64_t)sizeof(float);
}

/* Some file systems, of networks above all, do not know: they say 0 of 0. */
static bool find_free_bytes(const char *folder, int64_t *n_bytes, struct Error *err) {
    struct statvfs disk;
    if (statvfs(folder, &disk) != 0)
        return error_set(err, "%s: cannot ask for its disk: %s", folder, strerror(errno));
    *n_bytes = disk.f_blocks ? (int64_t)disk.f_bavail * (int64_t)disk.f_frsize : -1;
    return true;
}

bool checkpoint_room_look(struct CheckpointRoom *room, const struct Networks *nets,
                          const char *folder, struct Error *err) {
    int64_t keep_last = nets->config->checkpoint.keep_last, n_there;
    if (!ckpt_folder_count(folder, &n_there, err)) return false;
    snprintf(room->folder, sizeof room->folder, "%s", folder);
    room->checkpoint_bytes = bytes_to_save(nets);
    room->n_to_fit = n_there < keep_last ? keep_last + 1 - n_there : 1;
    return find_free_bytes(folder, &room->free_bytes, err) && checkpoint_room_check(room, err);
}

/* "26.4 GB" */
static const char *bytes_text(int64_t n_bytes, char text[32]) {
    double mb = 1e-6 * (double)n_bytes;
    snprintf(text, 32, mb < 1000.0 ? "%.1f MB" : "%.1f GB", mb < 1000.0 ? mb : 1e-3 * mb);
    return text;
}

bool checkpoint_room_check(const struct CheckpointRoom *room, struct Error *err) {
    char needed[32], there[32];
    return room->free_bytes < 0 || room->checkpoint_bytes <= room->free_bytes ||
           error_set(err, "%s: expected room for a checkpoint, %s, got %s left on its disk",
                     room->folder, bytes_text(room->checkpoint_bytes, needed),
                     bytes_text(room->free_bytes, there));
}

bool checkpoint_room_warning(const struct CheckpointRoom *room, char text[CHECKPOINT_ROOM_TEXT]) {
    char needed[32], there[32];
    int64_t all = room->n_to_fit * room->checkpoint_bytes;
    if (room->free_bytes < 0 || all <= room->free_bytes) return false;
    snprintf(
        text, CHECKPOINT_ROOM_TEXT,
        "%s: %lld checkpoints need %s before the first is removed, and %s are left on the disk; a "
        "smaller checkpoint.keep_last needs less",
        room->folder, (long long)room->n_to_fit, bytes_text(all, needed),
        bytes_text(room->free_bytes, there));
    return true;
}

void checkpoint_room_print(const struct CheckpointRoom *room, FILE *out) {
    char each[32], there[32] = "an unknown amount";
    if (!room->checkpoint_bytes) return;
    if (room->free_bytes >= 0) bytes_text(room->free_bytes, there);
    fprintf(out, "  %-10s %s free for checkpoints of about %s each, of which %lld must fit\n",
            "disk", there, bytes_text(room->checkpoint_bytes, each), (long long)room->n_to_fit);
}
