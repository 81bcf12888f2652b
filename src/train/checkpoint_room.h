/* Whether the disk has room for a run's checkpoints, asked before anything is computed.
 *
 * A checkpoint holds, of each trained network, float32 weights and both moments of AdamW, and the
 * average of the one that an EMA follows: 12 or 16 bytes per parameter.  Compression saves some of
 * that, which is not counted.  While a checkpoint is written, the last `checkpoint.keep_last` ones
 * are still on the disk; a resumed run finds some of these there already.  What
 * checkpoint.keep_every keeps comes on top, and is not counted either. */
#ifndef TMD_CHECKPOINT_ROOM_H
#define TMD_CHECKPOINT_ROOM_H

#include <stdio.h>

#include "train/networks.h"

enum { CHECKPOINT_ROOM_TEXT = 512 };

struct CheckpointRoom {
    char folder[256];         /* as far as it fits, for messages */
    int64_t checkpoint_bytes; /* of one */
    int64_t n_to_fit;         /* how many will be written before the first is removed */
    int64_t free_bytes;       /* for this user, on the disk of the folder; -1: it does not tell */
};

/* What `nets` would save, and the disk of `folder`, which must exist.  False, with a sentence, if
 * the disk has no room for a single checkpoint. */
bool checkpoint_room_look(struct CheckpointRoom *room, const struct Networks *nets,
                          const char *folder, struct Error *err);
/* The verdict alone. */
bool checkpoint_room_check(const struct CheckpointRoom *room, struct Error *err);
/* Whether one fits, but not all; then with a sentence. */
bool checkpoint_room_warning(const struct CheckpointRoom *room, char text[CHECKPOINT_ROOM_TEXT]);
/* A line of the environment's block; nothing before checkpoint_room_look. */
void checkpoint_room_print(const struct CheckpointRoom *room, FILE *out);

#endif
