/* The steps by kind: which step an iteration runs, which roles it trains, and what it reports. */
#ifndef TMD_STEP_RUN_H
#define TMD_STEP_RUN_H

#include "train/step.h"

enum StepKind { STEP_TEACHER, STEP_KD, STEP_STAGE1, STEP_STUDENT, STEP_CRITIC, STEP_KIND_COUNT };

/* "teacher", "kd", "stage1", "student", "critic". */
const char *step_kind_name(enum StepKind kind);
bool step_kind_parse(const char *name, enum StepKind *kind);

/* The kind that iteration k of a stage runs: stage two alternates, the others are their one step. */
enum StepKind step_kind_at(const struct Config *config, int64_t iteration);

/* The roles whose gradients a kind of step makes. */
bool step_trains(enum StepKind kind, enum Role role);
/* The roles that a kind of step evaluates at all. */
bool step_reads(enum StepKind kind, enum Role role);

struct StepResult {
    enum StepKind kind;
    int64_t batch;
    union {
        struct FlowMatchingOutputs teacher;
        struct KdOutputs kd;
        struct Stage1Outputs stage1;
        struct StudentOutputs student;
        struct CriticOutputs critic;
    };
};

void step_run(const struct StepContext *ctx, enum StepKind kind, const struct StepInputs *in,
              struct StepResult *result);

enum { STEP_MAX_SCALARS = 4, STEP_MAX_VIDEOS = 4 };

/* Losses of this pass, summed over its samples and weighted (step_replicated_weight), so that their sum
 * over passes and ranks is the mean over the global batch.  Downloads, and so waits for the
 * device.  Returns how many. */
struct StepScalar {
    const char *name;
    double value;
    bool derived; /* for the metrics only: another output says the same in full */
};
int step_scalars(const struct StepContext *ctx, const struct StepResult *result,
                 struct StepScalar out[STEP_MAX_SCALARS]);

/* Intermediate videos [B, C, F, H, W] worth looking at, on the device.  Returns how many. */
struct StepVideo {
    const char *name;
    const float *video;
};
int step_videos(const struct StepResult *result, struct StepVideo out[STEP_MAX_VIDEOS]);

#endif
