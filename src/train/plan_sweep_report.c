/* A sweep as a table on the terminal. */
#include <stdlib.h>

#include "train/plan_sweep.h"

static const double GB = 1e-9;

static void print_numbers(const struct SweepPoint *point, FILE *out) {
    fprintf(out, "  %8d %8lld %9.2f %11.4g %11.4g %6.1f %% %6.1f %% %11.4g", point->n_gpus,
            (long long)point->global_batch, GB * point->memory_bytes, point->seconds,
            sweep_samples_per_second(point), 100.0 * point->mfu,
            100.0 * point->exposed_seconds / point->seconds, sweep_gpu_hours(point));
    if (point->efficiency > 0.0)
        fprintf(out, " %10.2f", point->efficiency);
    else
        fprintf(out, " %10s", "-");
    fprintf(out, "%s\n", point->fits ? "" : "  does not fit");
}

static void print_curve(const struct SweepCurve *curve, FILE *out) {
    fprintf(out, " %s\n", curve->name);
    for (int i = 0; i < curve->n_points; i++) {
        const struct SweepPoint *point = &curve->points[i];
        if (point->why_not)
            fprintf(out, "  %8d %8lld  %s\n", point->n_gpus, (long long)point->global_batch,
                    point->why_not);
        else
            print_numbers(point, out);
    }
}

void sweep_print(const struct Sweep *sweep, FILE *out) {
    const int n = sweep->keys->n_combinations;
    fprintf(out, "\n  %8s %8s %9s %11s %11s %8s %8s %11s %10s\n", "GPUs", "batch", "GB each",
            "s/iteration", "samples/s", "MFU", "exposed", "GPU-hours", "efficiency");
    for (int i = 0; i < n; i++) print_curve(&sweep->curves[i], out);
    fprintf(out, "\nwhere it stops scaling (efficiency %.2g or better), and why\n",
            SWEEP_LEAST_EFFICIENCY);
    for (int i = 0; i < n; i++) {
        char *verdict = sweep_verdict(&sweep->curves[i], sweep->machine);
        fprintf(out, "  %s\n", verdict);
        free(verdict);
    }
}
