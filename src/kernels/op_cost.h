/* What a call of each operation costs, from its arguments alone: the one definition by which the
 * plan backend counts what a step will do and the meter counts what it did.
 *
 *     flops   two for each term of a matrix product, an attention or a convolution (padding counts
 *             as data); attention's backward recomputes the scores, and that counts.  Nothing else
 *             counts, as is usual where utilisation is a share of a machine's peak: all other
 *             operations together are below 1 % and bound by memory.
 *     bytes   every operand moved once between memory and the processor: the least that a call can
 *             do with cold caches.
 *
 * The functions are declared through the list macros of backend.h: an operation without a cost does
 * not compile. */
#ifndef TMD_OP_COST_H
#define TMD_OP_COST_H

#include "kernels/backend.h"

struct OpCost {
    double flops, bytes;
};

#define OP_COST_PROTOTYPE(name, params, names)                                                     \
    struct OpCost op_cost_##name(const struct Backend *be, BACKEND_UNWRAP params);
MEMORY_OPS(OP_COST_PROTOTYPE)
COMPUTE_OPS(OP_COST_PROTOTYPE)

#define OP_ENUM(name, params, names) OP_##name,
enum Op { MEMORY_OPS(OP_ENUM) COMPUTE_OPS(OP_ENUM) OP_COUNT };

/* "linear_forward" */
const char *op_name(enum Op op);

/* What a backend did of one operation.  `seconds` is wall time, 0 where nothing was computed. */
struct OpTally {
    int64_t calls;
    double seconds, flops, bytes;
};

static inline void op_tally_add(struct OpTally *tally, struct OpCost cost, double seconds) {
    tally->calls++;
    tally->seconds += seconds;
    tally->flops += cost.flops;
    tally->bytes += cost.bytes;
}

struct OpRow {
    enum Op op;
    struct OpTally tally;
};
/* Sorts rows by seconds, the most first. */
void op_rows_sort(struct OpRow *rows, int n_rows);

/* Sums over all operations; tallies [OP_COUNT]. */
struct OpTally op_tally_total(const struct OpTally *tallies);

#endif
