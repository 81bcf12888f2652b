/* What a run says of itself: metrics.jsonl, one JSON object per iteration, and lines on the terminal.
 *
 * Keys: iteration, kind, the losses of the kind ("loss", "loss.vsd", "loss.gan", "loss.fake",
 * "loss.disc", ...), "grad_norm.<role>", "lr.<role>", "seconds.<phase>", "samples_per_second",
 * "memory_bytes", "sent_bytes" (what rank 0 sent of weights, gradients and activations in this
 * iteration, comm.h), "graphs" and "graph_launches" (run_often of backend.h, since the program started),
 * and "skipped": true if the iteration was not finite. */
#ifndef TMD_METRICS_H
#define TMD_METRICS_H

#include <stdint.h>
#include <stdio.h>

#include "train/phase_timer.h"
#include "train/step_run.h"

struct IterationReport {
    int64_t iteration;
    enum StepKind kind;
    int n_scalars;
    struct StepScalar scalars[STEP_MAX_SCALARS]; /* means over the global batch */
    double grad_norm[ROLE_COUNT], lr[ROLE_COUNT]; /* of the roles that the kind trains */
    bool skipped;
    struct PhaseTimer timer;
    int64_t samples, memory_bytes, sent_bytes;
    struct LearnedRegions learned;
};

struct Metrics {
    FILE *file;
    bool terminal;  /* stderr is one: draw a progress bar */
    double started; /* wall_seconds of the first report */
    int64_t first_iteration, iterations, log_every;
};

/* Opens <out>/metrics.jsonl, keeping only the lines of iterations before `first`: a resumed run
 * repeats those after its checkpoint. */
bool metrics_open(struct Metrics *metrics, const struct Config *config, int64_t first,
                  struct Error *err);
bool metrics_report(struct Metrics *metrics, const struct IterationReport *report,
                    struct Error *err);
void metrics_close(struct Metrics *metrics);

#endif
