/* The communicator that sends nothing: it books what the sums of a step would put on the network,
 * and when they would end.
 *
 * The link works beside the GPU, one sum after the other.  A sum begins when it is started and the
 * link is free; sums_finish waits for the last.  What is waited there is the exposed time of the
 * communication; what the sums take from memory and processors of the GPU is not counted. */
#ifndef TMD_COMM_PLAN_H
#define TMD_COMM_PLAN_H

#include "kernels/backend.h"
#include "train/comm.h"
#include "train/plan_clock.h"

/* Of one rank. */
struct PlanTraffic {
    int64_t messages;
    double buffer_bytes;                  /* summed over */
    double sent_bytes;                    /* plan_sum_bytes */
    double link_seconds, exposed_seconds; /* the link at work; the GPU waiting for it */
};

/* Reads the time of `be`, a planning backend with a clock, which outlives it.  A single rank sends
 * nothing. */
struct Comm *comm_plan_create(const struct Backend *be, int n_ranks, struct PlanLink link);
/* Since the creation or the last reset. */
struct PlanTraffic comm_plan_traffic(const struct Comm *comm);
void comm_plan_reset(struct Comm *comm);

#endif
