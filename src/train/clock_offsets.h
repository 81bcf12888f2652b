/* How far the clocks of ranks are apart (Cristian, "Probabilistic clock synchronization", 1989),
 * for all ranks in one exchange.
 *
 * Rank 0 reads its clock (t0) and calls all ranks by a broadcast; rank r receives it and reads its
 * own clock (t_r); rank 0 reads again (t1) when it has everybody's answer.  By rank 0's clock, t_r
 * was therefore read between t0 and t1, and rank r is ahead by
 *
 *     t_r - (t0 + t1) / 2,  known to within (t1 - t0) / 2.
 *
 * The shortest of several exchanges counts. */
#ifndef TMD_CLOCK_OFFSETS_H
#define TMD_CLOCK_OFFSETS_H

#include "train/comm.h"

/* Seconds since 1970 by this host's clock. */
double clock_now(void);

/* ahead[r]: seconds by which rank r's `clock` is ahead of rank 0's, each within *uncertainty.  Both
 * are set on rank 0 alone.  Collective. */
void clock_offsets_measure(struct Comm *comm, double (*clock)(void), double *ahead,
                           double *uncertainty);

#endif
