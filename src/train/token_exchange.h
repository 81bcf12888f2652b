/* How ranks exchange split tokens: joins model/token_split.h, which knows nothing of ranks, to
 * comm.h. */
#ifndef TMD_TOKEN_EXCHANGE_H
#define TMD_TOKEN_EXCHANGE_H

#include "model/token_split.h"
#include "train/comm.h"

/* The split of samples of `tokens` tokens over the ranks of `parts`, at most TOKEN_MAX_PARTS.
 * `parts` works on the backend's memory and outlives the split. */
struct TokenSplit token_split_over(struct Comm *parts, int64_t tokens);

#endif
