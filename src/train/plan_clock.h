/* How long things take on a machine that is not at hand.
 *
 *     operation   launch + max(flops / (reached share x peak), bytes / (reached share x bandwidth))
 *     ring        message + rounds (n - 1) / n bytes / rate
 *     exchange    message + max(bytes for GPUs of its node / inside, bytes for others / adapter)
 *
 * The first is a roofline, with the share of the peak that operations of its kind reach.
 *
 * In a ring each of n ranks sends the buffer less an n-th in a round: one so that every rank has
 * the sum of a part of its own, and one so that all have all parts; a sum is both.  The n GPUs are
 * `stride` apart, the first of them a node's first.  Where they do not fit into the node, its GPUs
 * all belong to such rings, each of which leaves through the adapters of its own GPUs there: the
 * rate is that of the links inside or of these adapters together, whichever is less.
 *
 * In an exchange each GPU sends to every other, over links inside and its own adapter at once. */
#ifndef TMD_PLAN_CLOCK_H
#define TMD_PLAN_CLOCK_H

#include "kernels/plan/backend_plan.h"
#include "train/machine.h"

/* `machine` must outlive the clock. */
struct PlanClock plan_clock(const struct Machine *machine);

/* What a GPU sees of a network, bytes per second: its links to the others of its node, and its
 * adapter to GPUs of other nodes, 0 if the network does not leave the node. */
struct PlanLink {
    double inside, adapter, message_seconds;
    int64_t node_gpus;
};
/* An error when the GPUs do not fit into a node that the network does not leave. */
bool plan_link(struct PlanLink *link, const struct Machine *machine, const struct Network *network,
               int n_gpus, struct Error *err);

/* Bytes that each of n ranks sends when a buffer goes round their ring; seconds that it takes to
 * send so many; and bytes per second. */
double plan_ring_bytes(int rounds, double buffer_bytes, int n_ranks);
double plan_ring_seconds(const struct PlanLink *link, double sent_bytes, int n_ranks, int stride);
double plan_ring_rate(const struct PlanLink *link, int n_ranks, int stride);

/* Seconds of an exchange in which a GPU sends so many bytes into its node and to others. */
double plan_exchange_seconds(const struct PlanLink *link, double near_bytes, double far_bytes);

#endif
