/* What the planning backend (backend.h) tells beyond memory and cost: time.  With a clock, each
 * call is booked with the seconds that it would take on the machine that is planned for. */
#ifndef TMD_BACKEND_PLAN_H
#define TMD_BACKEND_PLAN_H

#include "kernels/op_cost.h"

struct PlanClock {
    double (*seconds)(const void *machine, enum Op op, struct OpCost cost);
    const void *machine; /* outlives the backend */
};

/* For the calls from now on; before, they take no time. */
void backend_plan_set_clock(struct Backend *be, struct PlanClock clock);

/* Seconds of all calls since the clock was set: the time on the planned machine. */
double backend_plan_now(const struct Backend *be);

/* Of the flops tallied: those with which attention's backward makes the scores again. */
double backend_plan_scores_again(const struct Backend *be);

/* Zeroes the tallies and the count above; memory and time go on. */
void backend_plan_reset(struct Backend *be);

#endif
