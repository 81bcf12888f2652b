/* Which sample comes when: shuffled epochs without any state.
 *
 * Position p of a run belongs to epoch e = p / n; within the epoch the order is a permutation of
 * [0, n) keyed by seed and epoch, so every sample comes once per epoch, whoever asks and in
 * whatever order.  Resuming a run needs its position only.
 *
 * The permutation is a balanced Feistel network over [0, 4^k), 4^k >= n > 4^(k-1), with Philox as
 * the round function; results beyond n are sent through it again until one falls below n ("cycle
 * walking", Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), at most a few
 * times on average. */
#ifndef TMD_DATA_SAMPLE_ORDER_H
#define TMD_DATA_SAMPLE_ORDER_H

#include <stdint.h>

/* The sample in [0, n_samples) at position >= 0. */
int64_t sample_order_at(uint64_t seed, int64_t n_samples, int64_t position);

#endif
