/* The formulas of the header. */
#include "model/time_grid.h"

double shift_time(double u, double gamma) {
    return gamma * u / ((gamma - 1.0) * u + 1.0);
}

void time_grid(double *grid, int64_t steps, double gamma, double t_max) {
    for (int64_t j = 0; j < steps; j++) grid[j] = shift_time((double)j / (double)steps, gamma);
    grid[steps] = t_max;
}

double inner_target_time(double s, const double *grid, int64_t steps) {
    double r = 0.0;
    for (int64_t j = 0; j <= steps; j++)
        if (grid[j] <= s && grid[j] > r) r = grid[j];
    return r;
}

double effective_nfe(int64_t outer_steps, int64_t inner_steps, int64_t head_blocks,
                     int64_t num_layers) {
    if (!head_blocks) return (double)outer_steps;
    return (double)outer_steps *
           (1.0 + (double)(inner_steps - 1) * (double)head_blocks / (double)num_layers);
}
