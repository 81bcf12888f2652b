/* Sequence parallelism: the tokens of a sample are divided into parts, one for each of some ranks
 * (Ulysses; Jacobs et al., arXiv 2309.14509).
 *
 * Part p of P computes tokens [S p / P, S (p + 1) / P), rounded up, of each sample, with all heads;
 * no part is larger than part 0.  Only self-attention needs the tokens of other parts.  Around it
 * the parts exchange tokens for heads:
 *
 *     own tokens [B, S_p, heads, width]  <->  all tokens [B, S, heads / P, width] of the own heads
 *
 * Every part has whole latents, text and times.  A part's parameter gradients are those of its
 * tokens; their sum over the parts is the gradient.
 *
 * All parts call the same functions in the same order.  Whoever runs the parts provides the
 * exchange; this module knows nothing of how. */
#ifndef TMD_TOKEN_SPLIT_H
#define TMD_TOKEN_SPLIT_H

#include "kernels/arena.h"

enum { TOKEN_MAX_PARTS = 64 };

/* A stretch of a buffer that goes to, or comes from, one part. */
struct TokenParcel {
    int64_t at, n_bytes;
};

struct TokenSplit {
    int part, n_parts;
    int64_t tokens; /* of a whole sample, S */
    void *context;
    /* Sends the bytes send_parcels[r] of `send` to part r, and receives what part r sends into
     * recv_parcels[r] of `recv`, for all r including this part; parcels [n_parts].  Device memory.
     * It comes after the backend's operations called before it, and before those called after it. */
    void (*exchange)(void *context, void *recv, const struct TokenParcel *recv_parcels,
                     const void *send, const struct TokenParcel *send_parcels);
};

/* The first token of a part; that of part n_parts is where they end. */
static inline int64_t token_split_first(const struct TokenSplit *split, int part) {
    return (split->tokens * part + split->n_parts - 1) / split->n_parts;
}
/* How many tokens this part has. */
static inline int64_t token_split_own(const struct TokenSplit *split) {
    return token_split_first(split, split->part + 1) - token_split_first(split, split->part);
}

/* ---- rows of `width` elements, one for each token; `split` NULL: all tokens are here, and nothing
 * is copied */

/* A buffer for rows of all tokens of which `own` [batch, S_p, width] are to be cut out: `own`
 * itself where these are all, else from the arena. */
Act *token_rows_to_cut(const struct TokenSplit *split, Act *own, int64_t batch, int64_t width,
                       struct Arena *arena);
/* own = the own rows of `all`, which token_rows_to_cut gave. */
void token_rows_cut(const struct TokenSplit *split, Act *own, const Act *all, int64_t batch,
                    int64_t width, const struct Backend *be);
/* The rows [batch, S, width] of all parts: `own` itself where these are all, else from the arena.
 */
const Act *token_rows_gather(const struct TokenSplit *split, const Act *own, int64_t batch,
                             int64_t width, struct Arena *arena);

/* ---- tokens for heads */

/* A tensor [batch, S_p, dim], as q is, whose rows are `stride` elements apart. */
struct TokenStream {
    Act *rows;
    int64_t stride;
};

/* heads [batch, S, n_streams, dim / P] <-> streams [n_streams], of which the heads of a token are
 * `dim` long together; P divides their number.  Temporaries come from the arena and go back. */
void token_split_to_heads(const struct TokenSplit *split, Act *heads,
                          const struct TokenStream *streams, int n_streams, int64_t batch,
                          int64_t dim, struct Arena *arena);
void token_split_to_tokens(const struct TokenSplit *split, const struct TokenStream *streams,
                           int n_streams, const Act *heads, int64_t batch, int64_t dim,
                           struct Arena *arena);

#endif
