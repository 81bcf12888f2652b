/* A plan for programs: the numbers of plan_print, unrounded.  Seconds, bytes, flops; of steps
 * per GPU and iteration.
 *
 *     {"config", "stage", "gpu", "network", "gpus", "tokens", "fits",
 *      "memory": {"capacity", "total", "reserved", "batch", "step",
 *                 "weights": {role: {"master", "compute", "gradient", "moments", "EMA"}}},
 *      "steps": [{"kind", "iterations", "seconds", "model_flops",
 *                 "phases": {name: {"calls", "seconds", "flops", "bytes"}}, "operations": the same,
 *                 "sums": {"messages", "buffer_bytes", "sent_bytes", "link_seconds",
 *                          "exposed_seconds"}}],
 *      "preparation_seconds", "run_seconds", "mfu", "gpu_hours"} */
#ifndef TMD_PLAN_JSON_H
#define TMD_PLAN_JSON_H

#include <jansson.h>

#include "train/plan_run.h"

/* A new reference.  config: the path of the configuration. */
json_t *plan_json(const struct Plan *plan, const char *config);

#endif
