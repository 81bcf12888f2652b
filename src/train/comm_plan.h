/* The communicator that sends nothing: it books what a step would put on the network, and when that
 * would have arrived.
 *
 * The link works in parallel with the GPU, one operation after the other, also those of
 * communicators that were split from each other (as in comm_nccl.c).  An operation begins when it
 * has been started and the link is free.  The time for which `wait` and `finish` wait is the
 * exposed time of the communication.  The GPU's own work for an operation is not counted.  The rank
 * is 0 and stands for all. */
#ifndef TMD_COMM_PLAN_H
#define TMD_COMM_PLAN_H

#include "kernels/backend.h"
#include "train/comm.h"
#include "train/plan_clock.h"

/* Of one rank. */
struct PlanTraffic {
    int64_t messages;                     /* operations */
    double buffer_bytes;                  /* summed over, `all`, what an exchange sends */
    double sent_bytes;                    /* to other ranks (plan_clock.h) */
    double link_seconds, exposed_seconds; /* the link at work; the GPU waiting for it */
};

/* Reads the time of `be`, a planning backend with a clock, which outlives it.  A single rank sends
 * nothing, and copies as `self` does. */
struct Comm *comm_plan_create(const struct Backend *be, int n_ranks, struct PlanLink link);
/* Since the creation or the last reset, with what was split from it. */
struct PlanTraffic comm_plan_traffic(const struct Comm *comm);
void comm_plan_reset(struct Comm *comm);

#endif
