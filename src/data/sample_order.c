/* The Feistel network: in each round the halves (l, r) become (r, l ^ f(r)), which is a permutation
 * for any f. */
#include "data/sample_order.h"

#include "error.h"
#include "philox.h"

/* Keeps these draws apart from others of the same seed: "order" in ASCII. */
#define ORDER_STREAM UINT64_C(0x6F72646572)

/* One pass of the network over the 2 * half_bits low bits of `value`. */
static uint64_t feistel(uint64_t key, uint64_t epoch, int half_bits, uint64_t value) {
    enum { ROUNDS = 8 };
    uint64_t mask = (UINT64_C(1) << half_bits) - 1;
    uint64_t left = value >> half_bits, right = value & mask;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct Philox bits =
            philox(key, (uint32_t)right, round, (uint32_t)epoch, (uint32_t)(epoch >> 32));
        uint64_t mixed = left ^ (bits.word[0] & mask);
        left = right;
        right = mixed;
    }
    return left << half_bits | right;
}

int64_t sample_order_at(uint64_t seed, int64_t n_samples, int64_t position) {
    TMD_CHECK(n_samples >= 1 && position >= 0, "position %lld of %lld samples", (long long)position,
              (long long)n_samples);
    uint64_t n = (uint64_t)n_samples, epoch = (uint64_t)position / n;
    uint64_t value = (uint64_t)position % n;
    if (n == 1) return 0;
    int half_bits = 1; /* up to 32: n < 2^63 */
    while (half_bits < 32 && UINT64_C(1) << (2 * half_bits) < n) half_bits++;
    do {
        value = feistel(seed ^ ORDER_STREAM, epoch, half_bits, value);
    } while (value >= n);
    return (int64_t)value;
}
