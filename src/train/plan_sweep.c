/* Plans every point, compares the points of a curve with its first that works, and puts the
 * comparison into a sentence. */
#include "train/plan_sweep.h"

#include <stdlib.h>
#include <string.h>

/* ---- a point */

static double part_seconds(const struct PlanTotals *totals, enum PlanPhase phase, double n) {
    return totals->phases[phase].seconds / n;
}

static void measure(struct SweepPoint *point, const struct Plan *plan) {
    const double n = (double)plan->config->train.iterations;
    struct PlanTotals totals = plan_totals(plan);
    point->fits = plan_fits(plan);
    point->memory_bytes = (double)plan_memory_total(&plan->memory);
    point->seconds = totals.whole.seconds / n;
    point->exposed_seconds = part_seconds(&totals, PLAN_EXPOSED, n);
    point->slowest_seconds = part_seconds(&totals, PLAN_SLOWEST, n);
    point->update_seconds =
        part_seconds(&totals, PLAN_ZERO, n) + part_seconds(&totals, PLAN_UPDATE, n);
    point->pass_seconds = part_seconds(&totals, PLAN_FORWARD, n) +
                          part_seconds(&totals, PLAN_AGAIN, n) +
                          part_seconds(&totals, PLAN_BACKWARD, n);
    point->model_flops = totals.model_flops / n;
    point->mfu = plan_mfu(plan);
    point->run_seconds = plan_run_seconds(plan);
}

static void plan_point(struct SweepPoint *point, const struct Config *config,
                       const struct PlanTarget *target) {
    struct Config of_point = *config; /* its strings are borrowed */
    struct PlanTarget at = *target;
    struct Plan plan;
    struct Error err;
    of_point.train.global_batch = point->global_batch;
    at.n_gpus = point->n_gpus;
    if (config_check(&of_point, &err) &&
        plan_link(&at.link, at.machine, at.network, at.n_gpus, &err) &&
        plan_make(&plan, &of_point, &at, &err))
        measure(point, &plan);
    else
        point->why_not = xstrdup(err.text);
}

bool sweep_point_works(const struct SweepPoint *point) {
    return !point->why_not && point->fits;
}

double sweep_samples_per_second(const struct SweepPoint *point) {
    return (double)point->global_batch / point->seconds;
}

double sweep_gpu_hours(const struct SweepPoint *point) {
    return point->n_gpus * point->run_seconds / 3600.0;
}

/* GPU-seconds of a sample, of which an iteration spends `seconds`. */
static double sample_cost(const struct SweepPoint *point, double seconds) {
    return point->n_gpus * seconds / (double)point->global_batch;
}

/* ---- a curve */

static void compare_points(struct SweepCurve *curve) {
    curve->first = curve->last = -1;
    for (int i = 0; i < curve->n_points; i++) {
        struct SweepPoint *point = &curve->points[i];
        if (curve->first < 0 && sweep_point_works(point)) curve->first = i;
        if (curve->first < 0 || point->why_not) continue;
        const struct SweepPoint *first = &curve->points[curve->first];
        point->efficiency = sample_cost(first, first->seconds) / sample_cost(point, point->seconds);
        if (point->fits && point->efficiency >= SWEEP_LEAST_EFFICIENCY) curve->last = i;
    }
}

void sweep_curve_make(struct SweepCurve *curve, const char *name, const struct Config *config,
                      const struct PlanTarget *target, const struct SweepCounts *counts,
                      enum SweepScale scale) {
    const int64_t batch = config->train.global_batch;
    *curve = (struct SweepCurve){.name = xstrdup(name), .n_points = counts->n};
    for (int i = 0; i < counts->n; i++) {
        struct SweepPoint *point = &curve->points[i];
        point->n_gpus = counts->gpus[i];
        point->global_batch =
            scale == SWEEP_WEAK ? batch * counts->gpus[i] / counts->gpus[0] : batch;
        plan_point(point, config, target);
    }
    compare_points(curve);
}

void sweep_curve_free(struct SweepCurve *curve) {
    for (int i = 0; i < curve->n_points; i++) free(curve->points[i].why_not);
    free(curve->name);
}

bool sweep_works(const struct Sweep *sweep) {
    for (int i = 0; i < sweep->keys->n_combinations; i++)
        if (sweep->curves[i].first >= 0) return true;
    return false;
}

const char *sweep_scale_name(enum SweepScale scale) {
    return scale == SWEEP_WEAK ? "weak" : "strong";
}

/* ---- why it stops */

/* Passes cost (seconds per flop) x (flops per sample); the flops of a sample grow, seemingly, where
 * the GPU that stands for all has more samples than the average. */
void sweep_losses(const struct SweepPoint *point, const struct SweepPoint *first,
                  double losses[SWEEP_CAUSES]) {
    double passes = sample_cost(point, point->pass_seconds);
    double work = sample_cost(point, point->model_flops) / sample_cost(first, first->model_flops);
    losses[SWEEP_COMMUNICATION] =
        sample_cost(point, point->exposed_seconds) - sample_cost(first, first->exposed_seconds);
    losses[SWEEP_UPDATE] =
        sample_cost(point, point->update_seconds) - sample_cost(first, first->update_seconds);
    losses[SWEEP_UNEVEN] = sample_cost(point, point->slowest_seconds) -
                           sample_cost(first, first->slowest_seconds) + passes - passes / work;
    losses[SWEEP_PASSES] = passes / work - sample_cost(first, first->pass_seconds);
}

static char *loss_text(const struct SweepPoint *point, const struct SweepPoint *first) {
    static const char *const names[SWEEP_CAUSES] = {
        "waiting for communication", "GPUs with less to do waiting for those with more",
        "the update, which takes its time however many GPUs there are",
        "passes so small that operations run at a lower rate"};
    double losses[SWEEP_CAUSES];
    double cost = sample_cost(point, point->seconds), before = sample_cost(first, first->seconds);
    int most = 0;
    sweep_losses(point, first, losses);
    for (int cause = 1; cause < SWEEP_CAUSES; cause++)
        if (losses[cause] > losses[most]) most = cause;
    double share = losses[most] / (cost - before);
    return xprintf("efficiency %.2f: a sample costs %.4g GPU-seconds instead of %.4g, and %.0f %% "
                   "of the difference is %s",
                   point->efficiency, cost, before, 100.0 * (share < 1.0 ? share : 1.0),
                   names[most]);
}

/* Why a point does not belong to those that scale. */
static char *obstacle(const struct SweepCurve *curve, int i, const struct Machine *machine) {
    const struct SweepPoint *point = &curve->points[i];
    if (point->why_not) return xstrdup(point->why_not);
    if (!point->fits)
        return xprintf("it takes %.2f GB of memory, a GPU has %.2f", 1e-9 * point->memory_bytes,
                       1e-9 * machine->memory_bytes);
    return loss_text(point, &curve->points[curve->first]);
}

/* "; on 64: WHY", or nothing for a point that is not there. */
static char *clause(const struct SweepCurve *curve, int i, const struct Machine *machine) {
    if (i < 0 || i >= curve->n_points) return xstrdup("");
    char *why = obstacle(curve, i, machine);
    char *text = xprintf("; on %d: %s", curve->points[i].n_gpus, why);
    free(why);
    return text;
}

/* Of a curve that scales, or runs at least. */
static char *success(const struct SweepCurve *curve, const struct Machine *machine) {
    const struct SweepPoint *first = &curve->points[curve->first];
    const struct SweepPoint *last = &curve->points[curve->last];
    char *before = clause(curve, curve->first - 1, machine);
    char *after = clause(curve, curve->last + 1, machine);
    char *text;
    if (first == last)
        text = xprintf("%s: runs on %d GPU%s%s%s", curve->name, first->n_gpus,
                       first->n_gpus > 1 ? "s" : "", before, after);
    else
        text = xprintf("%s: scales from %d to %d GPUs, where its efficiency is %.2f%s%s",
                       curve->name, first->n_gpus, last->n_gpus, last->efficiency, before, after);
    free(before);
    free(after);
    return text;
}

/* Of a curve that runs nowhere: what is in the way at both ends, for it may be memory at one and
 * the number of samples at the other. */
static char *failure(const struct SweepCurve *curve, const struct Machine *machine) {
    const int end = curve->n_points - 1;
    char *low = obstacle(curve, 0, machine), *high = obstacle(curve, end, machine);
    char *text;
    if (!strcmp(low, high))
        text = xprintf("%s: does not run: %s", curve->name, low);
    else
        text = xprintf("%s: does not run; on %d: %s; on %d: %s", curve->name,
                       curve->points[0].n_gpus, low, curve->points[end].n_gpus, high);
    free(low);
    free(high);
    return text;
}

char *sweep_verdict(const struct SweepCurve *curve, const struct Machine *machine) {
    return curve->first < 0 ? failure(curve, machine) : success(curve, machine);
}
