/* A stack of blocks [first, end): those of the whole DiT, of the main backbone, or of the flow
 * head. */
#ifndef TMD_WAN_STACK_H
#define TMD_WAN_STACK_H

#include "model/wan_block.h"
#include "model/wan_embed.h"

enum { WAN_MAX_LAYERS = 64, WAN_MAX_TAPS = 16 };

/* What forward keeps for backward (train.recompute).  The gradients are the same to the last bit. */
enum Keep {
    KEEP_NOTHING,   /* no backward will come */
    KEEP_INPUTS,    /* inputs of blocks, from which backward computes the activations again */
    KEEP_ATTENTION, /* also the outputs of attentions: dear to compute again, cheap to keep */
    KEEP_ALL
};

struct StackTape {
    enum Keep keep;
    int64_t first, end;
    const struct IntList *skip; /* blocks left out; NULL: none */
    const Act *inputs[WAN_MAX_LAYERS];       /* of the blocks whose input is kept */
    struct BlockTape blocks[WAN_MAX_LAYERS]; /* what else is kept */
};

/* Taps: outputs of some blocks, which the discriminator reads.  For each block in `blocks`, in
 * order, the tokens put back into an Act video [B, D / (pt ph pw), F, H, W], with the latent's own
 * F, H, W and the patch sizes pt, ph, pw. */
struct Taps {
    const struct IntList *blocks;
    Act *videos[WAN_MAX_TAPS];
};

static inline bool int_list_has(const struct IntList *list, int64_t value) {
    for (int i = 0; list && i < list->n; i++)
        if (list->items[i] == value) return true;
    return false;
}

/* Takes the tokens x [B, S, D] through the blocks first .. end - 1, except those in `skip`, and
 * returns the result.  With KEEP_NOTHING that is x itself, overwritten.  Otherwise x must stay
 * untouched until backward, and all else lies in the arena. */
Act *wan_stack_forward(const struct BlockPass *pass, const struct WanGeometry *geometry, Act *x,
                       enum Keep keep, int64_t first, int64_t end, const struct IntList *skip,
                       const struct Taps *taps, struct Arena *arena, struct StackTape *tape);

/* dx [B, S, D]: in, the gradient of what forward returned; out, that of its input.  `dtaps` (or
 * NULL), the gradients of the taps, are added on the way.  Starts at block from - 1, from <= end:
 * where only taps have gradients, the blocks above the last tap are not touched.  `last`: no later
 * backward of this iteration comes through these blocks, so that their gradients may be summed over
 * ranks. */
void wan_stack_backward(const struct BlockPass *pass, const struct WanGeometry *geometry, Act *dx,
                        int64_t from, const struct Taps *dtaps, const struct StackTape *tape,
                        struct BlockPassGradients want, bool last, struct Arena *arena);

#endif
