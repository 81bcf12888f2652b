/* Roll-out and its backward: steps of Euler's method on y, each with a pass of the flow head,
 * undone in the opposite order. */
#include "model/generator.h"

#include "error.h"
#include "model/time_grid.h"

enum { MAX_BATCH = STUDENT_MAX_BATCH };

static int64_t latent_elems(const struct Student *s) {
    return video_elems(s->wan.geometry->video, s->wan.config->in_dim);
}

/* out = sum of coef[k] in[k], the same coefficients for all samples. */
static void combine_all(const struct Student *s, float *out, int n, const float *const *in,
                        const double *coef, int64_t batch) {
    double table[COMBINE_MAX_TERMS * MAX_BATCH];
    for (int k = 0; k < n; k++)
        for (int64_t b = 0; b < batch; b++) table[k * batch + b] = coef[k];
    s->wan.weights->be->combine(s->wan.weights->be, out, n, in, table, batch, latent_elems(s));
}

static void fill(double *times, double value, int64_t batch) {
    TMD_CHECK(batch <= MAX_BATCH, "a batch of %lld", (long long)batch);
    for (int64_t b = 0; b < batch; b++) times[b] = value;
}

static void inner_grid(const struct Student *s, double grid[STUDENT_MAX_INNER_STEPS + 1]) {
    time_grid(grid, s->config->inner_steps, s->config->inner_shift, s->config->t_max);
}

void inner_flow_forward(const struct Student *s, struct MainFeature m, int64_t batch, float *y,
                        const float *y1, enum Keep keep, struct Arena *arena,
                        struct FlowHeadTape *tapes) {
    const struct Backend *be = s->wan.weights->be;
    int64_t n = batch * latent_elems(s);
    double grid[STUDENT_MAX_INNER_STEPS + 1], hi[MAX_BATCH], lo[MAX_BATCH];
    inner_grid(s, grid);
    be->copy(be, y, y1, n * (int64_t)sizeof(float));
    for (int64_t j = s->config->inner_steps; j >= 1; j--) {
        fill(hi, grid[j], batch);
        fill(lo, grid[j - 1], batch);
        float *head = arena_f32(arena, n);
        flow_head_forward(s, m, batch, head, y, hi, lo, keep, arena,
                          &tapes[keep == KEEP_NOTHING ? 0 : j - 1]);
        double step = grid[j] - grid[j - 1];
        combine_all(s, y, 3, (const float *[]){y, y1, head}, (double[]){1.0, -step, step}, batch);
    }
}

static void rollout_backward(const struct Student *s, struct MainFeatureGradients dm, float *dy,
                             const struct GeneratorTape *tape, bool last, struct Arena *arena) {
    int64_t batch = tape->in.wan.batch, n = batch * latent_elems(s), mark = arena_mark(arena);
    int64_t steps = s->config->inner_steps;
    double grid[STUDENT_MAX_INNER_STEPS + 1];
    float *dhead = arena_f32(arena, n), *dy_s = arena_f32(arena, n);
    inner_grid(s, grid);
    for (int64_t j = 1; j <= steps; j++) {
        combine_all(s, dhead, 1, (const float *[]){dy}, (double[]){grid[j] - grid[j - 1]}, batch);
        bool first_pass = j == steps; /* it starts from y1, a noise, which needs no gradient */
        flow_head_backward(s, dm, first_pass ? NULL : dy_s, dhead, &tape->heads[j - 1],
                           last && first_pass, arena);
        if (!first_pass)
            combine_all(s, dy, 2, (const float *[]){dy, dy_s}, (double[]){1.0, 1.0}, batch);
    }
    arena_release(arena, mark);
}

void generator_forward(const struct Student *s, struct GeneratorInputs in, float *x_hat,
                       enum Keep keep, struct Arena *arena, struct GeneratorTape *tape) {
    const struct Backend *be = s->wan.weights->be;
    int64_t batch = in.wan.batch, n = batch * latent_elems(s), mark = arena_mark(arena);
    float *y = arena_f32(arena, n);
    tape->in = in;
    if (!s->config->head_blocks) {
        double coef[2 * MAX_BATCH];
        fill(coef, 1.0, batch);
        for (int64_t b = 0; b < batch; b++) coef[batch + b] = -in.wan.host_t[b];
        wan_forward(&s->wan, in.wan, y, NULL, keep, arena, &tape->wan);
        be->combine(be, x_hat, 2, (const float *[]){in.wan.x, y}, coef, batch, latent_elems(s));
    } else {
        struct MainFeature m = student_backbone_forward(s, in.wan, keep, arena, &tape->backbone);
        if (in.y_s)
            flow_head_forward(s, m, batch, y, in.y_s, in.host_s, in.host_r, keep, arena,
                              &tape->heads[0]);
        else
            inner_flow_forward(s, m, batch, y, in.y1, keep, arena, tape->heads);
        combine_all(s, x_hat, 2, (const float *[]){in.x1, y}, (double[]){1.0, -1.0}, batch);
    }
    if (keep == KEEP_NOTHING) arena_release(arena, mark);
}

void generator_backward(const struct Student *s, const float *dx_hat, const struct GeneratorTape *tape,
                        bool last, struct Arena *arena) {
    const struct Backend *be = s->wan.weights->be;
    int64_t batch = tape->in.wan.batch, mark = arena_mark(arena);
    float *dy = arena_f32(arena, batch * latent_elems(s));
    if (!s->config->head_blocks) {
        double coef[MAX_BATCH];
        for (int64_t b = 0; b < batch; b++) coef[b] = -tape->in.wan.host_t[b];
        be->combine(be, dy, 1, (const float *[]){dx_hat}, coef, batch, latent_elems(s));
        wan_backward(&s->wan, NULL, dy, NULL, &tape->wan, last, arena);
    } else {
        struct MainFeatureGradients dm = main_feature_gradients(s, batch, arena);
        combine_all(s, dy, 1, (const float *[]){dx_hat}, (double[]){-1.0}, batch);
        if (tape->in.y_s)
            flow_head_backward(s, dm, NULL, dy, &tape->heads[0], last, arena);
        else
            rollout_backward(s, dm, dy, tape, last, arena);
        student_backbone_backward(s, dm, &tape->backbone, last, arena);
    }
    arena_release(arena, mark);
}
