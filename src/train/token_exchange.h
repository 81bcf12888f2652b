/* Binds the exchanges of tokens that are split (model/token_split.h) to ranks. */
#ifndef TMD_TOKEN_EXCHANGE_H
#define TMD_TOKEN_EXCHANGE_H

#include "model/token_split.h"
#include "train/comm.h"

/* Samples of `tokens` tokens split over the ranks of `parts`, at most TOKEN_MAX_PARTS, which works
 * on the backend's memory and outlives it. */
struct TokenSplit token_split_over(struct Comm *parts, int64_t tokens);

#endif
