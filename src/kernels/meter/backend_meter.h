/* A backend that computes nothing itself: it hands every operation to another backend and books
 * calls, seconds, flops and bytes (op_cost.h) per operation.  Times are wall time from the call to
 * the end of the work: a device that runs behind the host is waited for, so that the whole is
 * slower than without the meter. */
#ifndef TMD_BACKEND_METER_H
#define TMD_BACKEND_METER_H

#include "kernels/op_cost.h"

/* `inner` must outlive the meter, which does not own it. */
struct Backend *backend_meter_create(const struct Backend *inner);

/* [OP_COUNT], since the creation or the last reset; lives as long as the meter. */
const struct OpTally *backend_meter_tallies(const struct Backend *meter);
void backend_meter_reset(const struct Backend *meter);

/* While it pauses, everything goes straight to the other backend, with nothing booked or waited
 * for. */
void backend_meter_pause(const struct Backend *meter, bool paused);

#endif
