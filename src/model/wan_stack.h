/* A run of blocks [first, end): the whole DiT, the main backbone, or the flow head. */
#ifndef TMD_WAN_STACK_H
#define TMD_WAN_STACK_H

#include "model/wan_block.h"
#include "model/wan_embed.h"

enum { WAN_MAX_LAYERS = 64, WAN_MAX_TAPS = 16 };

/* What forward keeps: nothing (no backward will come); inputs of blocks, from which backward computes
 * them again (activation recomputation); besides, what the attentions gave, which cost the most to
 * compute again and little to keep; or everything.  The results do not differ in any bit. */
enum Keep { KEEP_NOTHING, KEEP_INPUTS, KEEP_ATTENTION, KEEP_ALL };

struct StackTape {
    enum Keep keep;
    int64_t first, end;
    const struct IntList *skip; /* blocks left out; NULL: none */
    const Act *inputs[WAN_MAX_LAYERS];       /* of the blocks whose input is kept */
    struct BlockTape blocks[WAN_MAX_LAYERS]; /* what else is kept */
};

/* Block outputs handed out, unpatchified: for each block in `blocks`, in order, an Act video
 * [B, D / (pt ph pw), F, H, W] with the latent's own F, H, W. */
struct Taps {
    const struct IntList *blocks;
    Act *videos[WAN_MAX_TAPS];
};

static inline bool int_list_has(const struct IntList *list, int64_t value) {
    for (int i = 0; list && i < list->n; i++)
        if (list->items[i] == value) return true;
    return false;
}

/* Returns the tokens after block end - 1.  With KEEP_NOTHING they are x itself, overwritten; otherwise x
 * must be there until backward, and all else lies in the arena. */
Act *wan_stack_forward(const struct BlockPass *pass, const struct WanGeometry *geometry, Act *x,
                       enum Keep keep, int64_t first, int64_t end, const struct IntList *skip,
                       const struct Taps *taps, struct Arena *arena, struct StackTape *tape);

/* dx: in, the gradient of what forward returned; out, that of its input.  `dtaps` (or NULL) are added
 * where forward handed them out, those in [first, from).  Starts below block `from` (<= end): blocks
 * above a network's last wanted output are never touched.  `last`: no later backward of this step
 * comes through these blocks, so that their gradients may travel. */
void wan_stack_backward(const struct BlockPass *pass, const struct WanGeometry *geometry, Act *dx,
                        int64_t from, const struct Taps *dtaps, const struct StackTape *tape,
                        struct BlockPassGradients want, bool last, struct Arena *arena);

#endif
