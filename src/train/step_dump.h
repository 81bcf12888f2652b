/* Writing the step that a run is in as a replay case (replay.h), so that a user replays the very step
 * that broke: `tmd replay DIR` gives it again. */
#ifndef TMD_STEP_DUMP_H
#define TMD_STEP_DUMP_H

#include "train/step_run.h"

/* Makes `folder` with case.yaml, inputs, the weights of every role that the step reads, and as expected
 * values what the step computed (losses as means over this pass's samples, and its videos; not the
 * gradients, which other passes may have added to).  `result` must still be alive in the arena. */
bool step_dump(const struct StepContext *ctx, const struct StepInputs *in,
               const struct StepResult *result, const char *folder, struct Error *err);

/* For a rank that writes nothing, but holds a share of the weights that another one writes at the same
 * time. */
void step_dump_help(const struct StepContext *ctx, enum StepKind kind);

#endif
