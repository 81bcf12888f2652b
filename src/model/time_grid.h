/* Times and their grids.  0 = data, 1 = noise; float64 throughout.
 *
 *     outer time t    of the video: x_t = (1 - t) x + t x1,  x data, x1 noise
 *     inner time s    of the flow head: y_s = (1 - s) y + s y1,  y = x1 - x, y1 noise
 *
 * A grid has a point for each step of a sampler and one more, from 0 up to t_max. */
#ifndef TMD_TIME_GRID_H
#define TMD_TIME_GRID_H

#include <stdint.h>

/* gamma u / ((gamma - 1) u + 1): pushes a uniform u towards the noisy end for gamma > 1. */
double shift_time(double u, double gamma);

/* grid[0 .. steps]: shift_time(j / steps), with grid[0] = 0 and grid[steps] = t_max. */
void time_grid(double *grid, int64_t steps, double gamma, double t_max);

/* The largest point of grid[0 .. steps] not above s: where TM-MeanFlow's flow map goes from s (r). */
double inner_target_time(double s, const double *grid, int64_t steps);

/* What a sample of M outer steps costs in evaluations of the teacher: M (1 + (N - 1) H / L), where
 * H of the L blocks form the flow head and run N times per step (TMD, arXiv 2601.09881, Eq. 16). */
double effective_nfe(int64_t outer_steps, int64_t inner_steps, int64_t head_blocks,
                     int64_t num_layers);

#endif
