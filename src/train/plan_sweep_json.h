/* A sweep for programs: the numbers of sweep_print, unrounded.  Bytes are of a GPU, seconds of an
 * iteration unless their name says more.
 *
 *     {"config", "gpu", "network", "scale": "strong" | "weak", "memory_capacity",
 *      "combinations": [{"name", "keys": {key: value}, "scales_from", "scales_to", "verdict",
 *          "points": [{"gpus", "global_batch", "why_not": null, "fits", "memory_bytes", "seconds",
 *                      "exposed_seconds", "slowest_seconds", "update_seconds", "pass_seconds",
 *                      "samples_per_second", "mfu", "run_seconds", "gpu_hours", "efficiency"}]}]}
 *
 * A point that cannot be planned ends with "why_not", a sentence.  null are: scales_from and
 * scales_to where nothing works, and efficiency below the first count that does. */
#ifndef TMD_PLAN_SWEEP_JSON_H
#define TMD_PLAN_SWEEP_JSON_H

#include <jansson.h>

#include "train/plan_sweep.h"

/* A new reference. */
json_t *sweep_json(const struct Sweep *sweep);

#endif
