/* Times and their grids (method.md, "Notation"). 0 = data, 1 = noise; float64 throughout. */
#ifndef TMD_TIME_GRID_H
#define TMD_TIME_GRID_H

#include <stdint.h>

/* gamma u / ((gamma - 1) u + 1): pushes uniform u towards the noisy end for gamma > 1. */
double shift_time(double u, double gamma);

/* grid[0 .. steps]: shift_time(j / steps), with grid[0] = 0 and grid[steps] = t_max. */
void time_grid(double *grid, int64_t steps, double gamma, double t_max);

/* The largest point of grid[0 .. steps] not above s: r of TM-MeanFlow. */
double inner_target_time(double s, const double *grid, int64_t steps);

/* What M outer steps cost in evaluations of the teacher: M (1 + (N - 1) H / L), Eq. 16. */
double effective_nfe(int64_t outer_steps, int64_t inner_steps, int64_t head_blocks,
                     int64_t num_layers);

#endif
