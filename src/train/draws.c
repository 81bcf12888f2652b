/* Each draw is a Philox word of its own, so that leaving one out changes no other. */
#include "train/draws.h"

#include "model/time_grid.h"
#include "philox.h"

uint64_t draw_stream(int64_t iteration, enum DrawPurpose purpose) {
    return (uint64_t)iteration << 8 | (uint64_t)purpose;
}

double draw_uniform(uint64_t seed, int64_t iteration, int64_t sample, enum DrawPurpose purpose) {
    uint64_t stream = draw_stream(iteration, purpose);
    struct Philox bits = philox(seed, 0, (uint32_t)sample, (uint32_t)stream, (uint32_t)(stream >> 32));
    return philox_uniform(bits.word[0]);
}

static double clip(double value, double low, double high) {
    return value < low ? low : value > high ? high : value;
}

/* 0 .. n - 1, uniform. */
static int64_t choice(double u, int64_t n) {
    int64_t i = (int64_t)(u * (double)n);
    return i < n ? i : n - 1;
}

/* What the draws of one sample read. */
struct Draw {
    const struct Config *config;
    int64_t iteration, sample;
    double outer[STUDENT_MAX_OUTER_STEPS + 1], inner[STUDENT_MAX_INNER_STEPS + 1]; /* the grids */
};

static double uniform(const struct Draw *d, enum DrawPurpose purpose) {
    return draw_uniform((uint64_t)d->config->train.seed, d->iteration, d->sample, purpose);
}

/* t_i, i uniform over 1 .. M. */
static double outer_time(const struct Draw *d, enum DrawPurpose purpose) {
    return d->outer[1 + choice(uniform(d, purpose), d->config->student.outer_steps)];
}

static void draw_teacher(const struct Draw *d, int64_t b, struct StepInputs *in) {
    const struct TeacherConfig *c = &d->config->teacher;
    in->t[b] = shift_time(uniform(d, DRAW_T), c->t_shift);
    in->drop[b] = uniform(d, DRAW_DROP) < c->text_dropout;
}

static void draw_stage1(const struct Draw *d, int64_t b, struct StepInputs *in) {
    const struct Stage1Config *c = &d->config->stage1;
    in->t[b] = outer_time(d, DRAW_T);
    in->s[b] = clip(shift_time(uniform(d, DRAW_S), c->s_shift), c->s_min, c->s_max);
    bool r_is_s = c->method == STAGE1_TM || uniform(d, DRAW_TM) < c->tm_prob;
    in->r[b] = r_is_s ? in->s[b]
                      : inner_target_time(in->s[b], d->inner, d->config->student.inner_steps);
    in->drop[b] = uniform(d, DRAW_DROP) < c->text_dropout;
}

static void draw_stage2(const struct Draw *d, int64_t b, struct StepInputs *in) {
    const struct Stage2Config *c = &d->config->stage2;
    in->t_student[b] = outer_time(d, DRAW_T_STUDENT);
    in->t[b] = clip(shift_time(uniform(d, DRAW_T), c->t_shift), c->t_min, c->t_max);
    int64_t j = 1 + choice(uniform(d, DRAW_INNER), d->config->student.inner_steps);
    in->s[b] = d->inner[j]; /* read only without roll-out */
    in->r[b] = d->inner[j - 1];
}

void draw_times(const struct Config *config, enum StepKind kind, int64_t iteration, int64_t first,
                struct StepInputs *in) {
    const struct StudentConfig *s = &config->student;
    struct Draw d = {.config = config, .iteration = iteration};
    time_grid(d.outer, s->outer_steps, s->outer_shift, s->t_max);
    time_grid(d.inner, s->inner_steps, s->inner_shift, s->t_max);
    for (int64_t b = 0; b < in->batch; b++) {
        d.sample = first + b;
        switch (kind) {
        case STEP_TEACHER: draw_teacher(&d, b, in); break;
        case STEP_KD: in->t_student[b] = s->t_max; break;
        case STEP_STAGE1: draw_stage1(&d, b, in); break;
        case STEP_STUDENT:
        case STEP_CRITIC: draw_stage2(&d, b, in); break;
        case STEP_KIND_COUNT: break;
        }
    }
}
