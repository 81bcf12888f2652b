/* How a run scales: plans of several configurations, each over growing numbers of GPUs, and where
 * each stops scaling, and why.
 *
 *     strong scaling   train.global_batch stays
 *     weak scaling     it grows with the GPUs, from the configuration's at the first count;
 *                      train.iterations stay, so that a run sees more samples
 *
 * A sample costs
 *
 *     cost(n) = n x seconds of an iteration / samples of an iteration      GPU-seconds,
 *     efficiency(n) = cost(first) / cost(n)
 *
 * where `first` is the smallest count that works: whose plan can be made and fits.  Every second of
 * a GPU is in one of the iteration's phases (plan_step.h), so what cost(n) has over cost(first) is
 * a sum of differences, and the largest is the reason for which a configuration stops scaling. */
#ifndef TMD_PLAN_SWEEP_H
#define TMD_PLAN_SWEEP_H

#include "train/plan_run.h"
#include "train/plan_sweep_keys.h"

enum SweepScale { SWEEP_STRONG, SWEEP_WEAK };

enum SweepCause {
    SWEEP_COMMUNICATION, /* waiting for it */
    SWEEP_UNEVEN,        /* some GPUs have more to do, by the number of samples or by draws */
    SWEEP_UPDATE,        /* what is done once in an iteration */
    SWEEP_PASSES,        /* forward and backward run at a lower rate */
    SWEEP_CAUSES
};

/* One configuration on n_gpus GPUs. */
struct SweepPoint {
    int n_gpus;
    int64_t global_batch;
    char *why_not; /* NULL: planned, and what follows holds */
    bool fits;
    double memory_bytes; /* per GPU */
    double seconds;      /* of an iteration, the mean of the run; the parts below too */
    double update_seconds, pass_seconds, slowest_seconds, exposed_seconds; /* add up to it */
    double model_flops; /* of a GPU and iteration */
    double mfu, run_seconds;
    double efficiency; /* 0: there is no first */
};

/* One configuration on all numbers of GPUs. */
struct SweepCurve {
    char *name; /* as sweep_combination_name */
    int n_points;
    struct SweepPoint points[SWEEP_MAX_COUNTS]; /* in increasing order of GPUs */
    int first; /* index of the first point that works; -1: none does */
    int last;  /* of the last one that works at SWEEP_LEAST_EFFICIENCY or better; -1: as above */
};

#define SWEEP_LEAST_EFFICIENCY 0.8 /* what still counts as scaling */

/* Of one CONFIG; strings and tables are borrowed. */
struct Sweep {
    const char *path;
    const struct Machine *machine;
    const struct Network *network;
    const struct SweepKeys *keys;
    enum SweepScale scale;
    struct SweepCurve *curves; /* [keys->n_combinations], in their order */
};

/* Plans `config` on each of the counts.  target: its n_gpus and link are not read.  What cannot be
 * planned, contradictions between keys among it, becomes the point's why_not. */
void sweep_curve_make(struct SweepCurve *curve, const char *name, const struct Config *config,
                      const struct PlanTarget *target, const struct SweepCounts *counts,
                      enum SweepScale scale);
void sweep_curve_free(struct SweepCurve *curve);

/* Whether it is planned and fits. */
bool sweep_point_works(const struct SweepPoint *point);
/* Whether any point of any curve does. */
bool sweep_works(const struct Sweep *sweep);
double sweep_samples_per_second(const struct SweepPoint *point);
double sweep_gpu_hours(const struct SweepPoint *point); /* of the run */

/* GPU-seconds per sample by cause that `point` has over `first`; both are planned. */
void sweep_losses(const struct SweepPoint *point, const struct SweepPoint *first,
                  double losses[SWEEP_CAUSES]);

/* The curve in one sentence: up to how many GPUs it scales, and what stops it.  The caller frees
 * it. */
char *sweep_verdict(const struct SweepCurve *curve, const struct Machine *machine);

/* "strong" or "weak". */
const char *sweep_scale_name(enum SweepScale scale);

/* As a table, with the verdicts below. */
void sweep_print(const struct Sweep *sweep, FILE *out);

/* As PNG, two panels for each sweep: samples per second over GPUs, and samples per GPU-hour, where
 * what scales stays level.  A line for each curve, rings where it does not fit, and dashed what the
 * best GPU of all would reach without loss. */
bool sweep_draw(const char *path, const struct Sweep *sweeps, int n_sweeps, struct Error *err);

#endif
