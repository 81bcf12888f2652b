/* The student as a generator, x_hat = g(x_t, t; y1), and back.
 *
 *     head_blocks > 0   x_hat = x1 - y_0, where the flow head is rolled out over the inner grid
 *                       s_N > ... > s_0 = 0 from y_N = y1:
 *                       y_{j-1} = y_j - (s_j - s_{j-1}) (y1 - head(y_j, s_j, s_{j-1}; m))
 *     one inner step    (the ablation without roll-out) x_hat = x1 - head(y_s, s, r; m)
 *     head_blocks = 0   x_hat = x_t - t v(x_t, t)
 *
 * Gradients flow through every pass of the flow head (TMD, arXiv 2601.09881, section 3). */
#ifndef TMD_GENERATOR_H
#define TMD_GENERATOR_H

#include "model/student.h"

struct GeneratorInputs {
    struct WanInputs wan; /* x = x_t, host_t = t */
    const float *x1, *y1; /* outer and inner noise [B, C, F, H, W]; y1 unused without a flow head */
    /* The ablation without roll-out: y_s and times per sample (host).  y_s NULL: roll out. */
    const float *y_s;
    const double *host_s, *host_r;
};

struct GeneratorTape {
    struct GeneratorInputs in;
    struct WanTape wan;           /* head_blocks = 0 */
    struct BackboneTape backbone; /* otherwise */
    struct FlowHeadTape heads[STUDENT_MAX_INNER_STEPS];
};

/* y [B, C, F, H, W] = y_0, the roll-out from y1 given the main feature m: the estimate of x1 - x.
 * tapes: inner_steps of them (one is enough with KEEP_NOTHING); pass j, from s_j to s_{j-1}, uses
 * tapes[j - 1]. */
void inner_flow_forward(const struct Student *student, struct MainFeature m, int64_t batch, float *y,
                        const float *y1, enum Keep keep, struct Arena *arena,
                        struct FlowHeadTape *tapes);

/* x_hat [B, C, F, H, W] float32. */
void generator_forward(const struct Student *student, struct GeneratorInputs in, float *x_hat,
                       enum Keep keep, struct Arena *arena, struct GeneratorTape *tape);
/* Parameter gradients from dx_hat.  `last`: see wan_stack_backward. */
void generator_backward(const struct Student *student, const float *dx_hat,
                        const struct GeneratorTape *tape, bool last, struct Arena *arena);

#endif
