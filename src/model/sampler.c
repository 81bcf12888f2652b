/* Both samplers are loops of Euler's method over a time grid, from noise down to data. */
#include "model/sampler.h"

#include "error.h"
#include "model/time_grid.h"

/* x = x - step v */
static void descend(const struct Wan *wan, int64_t batch, float *x, const float *v, double step) {
    const struct Backend *be = wan->weights->be;
    double coef[2 * STUDENT_MAX_BATCH];
    for (int64_t b = 0; b < batch; b++) {
        coef[b] = 1.0;
        coef[batch + b] = -step;
    }
    be->combine(be, x, 2, (const float *[]){x, v}, coef, batch,
                video_elems(wan->geometry->video, wan->config->in_dim));
}

void student_sample(const struct Student *s, int64_t batch, float *x, const float *y1,
                    const Act *text, struct Arena *arena, struct GeneratorTape *tape) {
    int64_t outer = s->config->outer_steps, mark = arena_mark(arena);
    int64_t n = batch * video_elems(s->wan.geometry->video, s->wan.config->in_dim);
    double grid[STUDENT_MAX_OUTER_STEPS + 1], t[STUDENT_MAX_BATCH];
    TMD_CHECK(outer <= STUDENT_MAX_OUTER_STEPS && batch <= STUDENT_MAX_BATCH, "%lld steps of %lld samples",
              (long long)outer, (long long)batch);
    time_grid(grid, outer, s->config->outer_shift, s->config->t_max);
    float *v = arena_f32(arena, n);
    for (int64_t i = outer; i >= 1; i--) {
        int64_t step_mark = arena_mark(arena);
        for (int64_t b = 0; b < batch; b++) t[b] = grid[i];
        struct WanInputs in = {.batch = batch, .x = x, .host_t = t, .text = text};
        if (!s->config->head_blocks) {
            wan_forward(&s->wan, in, v, NULL, KEEP_NOTHING, arena, &tape->wan);
        } else {
            struct MainFeature m =
                student_backbone_forward(s, in, KEEP_NOTHING, arena, &tape->backbone);
            inner_flow_forward(s, m, batch, v, y1 + (outer - i) * n, KEEP_NOTHING, arena,
                               tape->heads);
        }
        descend(&s->wan, batch, x, v, grid[i] - grid[i - 1]);
        arena_release(arena, step_mark);
    }
    arena_release(arena, mark);
}

void teacher_sample(const struct Wan *wan, struct TeacherSampler how, int64_t batch, float *x,
                    const Act *text, const Act *neg_text, struct Arena *arena,
                    struct WanTape *tape) {
    int64_t mark = arena_mark(arena);
    int64_t n = batch * video_elems(wan->geometry->video, wan->config->in_dim);
    double t[STUDENT_MAX_BATCH];
    TMD_CHECK(batch <= STUDENT_MAX_BATCH, "%lld samples", (long long)batch);
    float *v = arena_f32(arena, n), *v_neg = arena_f32(arena, n);
    for (int64_t k = how.steps; k >= 1; k--) {
        double sigma = shift_time((double)k / (double)how.steps, how.shift);
        double next = shift_time((double)(k - 1) / (double)how.steps, how.shift);
        for (int64_t b = 0; b < batch; b++) t[b] = sigma;
        struct WanInputs in = {.batch = batch, .x = x, .host_t = t, .text = text};
        wan_forward(wan, in, v, NULL, KEEP_NOTHING, arena, tape);
        double step = sigma - next;
        if (how.guidance != 1.0) {
            in.text = neg_text;
            in.skip_layers = how.skip_layers;
            wan_forward(wan, in, v_neg, NULL, KEEP_NOTHING, arena, tape);
            descend(wan, batch, x, v_neg, step * (1.0 - how.guidance));
            step *= how.guidance;
        }
        descend(wan, batch, x, v, step);
    }
    arena_release(arena, mark);
}
