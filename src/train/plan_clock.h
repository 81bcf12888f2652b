/* How long things take on a machine that is not at hand.
 *
 *     operation   launch + max(flops / (reached share x peak), bytes / (reached share x bandwidth))
 *     sum         message + 2 (n - 1) / n bytes / rate
 *
 * The first is a roofline, with the share of the peak that operations of its kind reach.  The
 * second is a ring of n ranks: each sends the buffer less an n-th so that it is summed, and as much
 * again so that all have the sum.
 *
 * The rings of a node's GPUs leave it through all of its network adapters, so that between nodes
 * the rate is that of the links inside or of all adapters together, whichever is less. */
#ifndef TMD_PLAN_CLOCK_H
#define TMD_PLAN_CLOCK_H

#include "kernels/plan/backend_plan.h"
#include "train/machine.h"

/* `machine` must outlive the clock. */
struct PlanClock plan_clock(const struct Machine *machine);

/* What n_gpus GPUs see of a network. */
struct PlanLink {
    double bandwidth, message_seconds;
};
/* An error when the GPUs do not fit into a node that the network does not leave. */
bool plan_link(struct PlanLink *link, const struct Machine *machine, const struct Network *network,
               int n_gpus, struct Error *err);

/* Bytes that each of n ranks sends, and seconds that it takes, to sum a buffer over all of them. */
double plan_sum_bytes(double buffer_bytes, int n_ranks);
double plan_sum_seconds(const struct PlanLink *link, double buffer_bytes, int n_ranks);

#endif
