/* One batch at a time: upload the text, draw the noise, run a sampler of model/sampler.h, download
 * the result. */
#include "train/sampling.h"

#include <stdlib.h>

#include "model/time_grid.h"
#include "train/draws.h"

struct Sampler sampler_init(const struct Networks *nets, enum Role role, bool use_ema) {
    const struct SamplerConfig *s = &nets->config->sampler;
    return (struct Sampler){
        .nets = nets,
        .role = role,
        .use_ema = use_ema,
        .teacher = {.steps = s->steps, .shift = s->shift, .guidance = s->guidance},
        .seed = (uint64_t)s->seed};
}

double sampler_nfe(const struct Sampler *sampler) {
    const struct Config *config = sampler->nets->config;
    const struct StudentConfig *s = &config->student;
    if (sampler->role == ROLE_STUDENT)
        return effective_nfe(s->outer_steps, s->inner_steps, s->head_blocks,
                             config->model.num_layers);
    return (double)sampler->teacher.steps * (sampler->teacher.guidance == 1.0 ? 1.0 : 2.0);
}

/* ---- on the device ---- */

struct Tapes {
    struct GeneratorTape student;
    struct WanTape teacher;
};

/* What all batches of a call share; `weights` are the role's, or its average in their place. */
struct Session {
    const struct Sampler *sampler;
    struct Weights weights;
    struct UnitMemory *units; /* of the average */
    struct Arena *arena;
    struct Tapes *tapes;
};

static void choose_weights(struct Session *session) {
    const struct Sampler *s = session->sampler;
    const struct Weights *w = &s->nets->frozen[s->role];
    session->weights = *w;
    if (!s->use_ema || !w->ema || w->share.n_shares > 1) return;
    Act *act = w->be->act_dtype == DTYPE_F32 ? NULL : arena_act(session->arena, w->n_elems);
    session->units = xcalloc((size_t)w->table->n_units * sizeof *session->units);
    session->weights = weights_average_view(w, act, session->units);
}

static struct Session session_begin(const struct Sampler *s, struct Arena *arena) {
    TMD_CHECK(s->role == ROLE_TEACHER || s->role == ROLE_STUDENT, "the %s makes no samples",
              role_name(s->role));
    struct Session session = {
        .sampler = s, .arena = arena, .tapes = xcalloc(sizeof(struct Tapes))};
    choose_weights(&session);
    return session;
}

static void session_end(struct Session *session) {
    free(session->units);
    free(session->tapes);
}

/* Text of `batch` samples as activations; the same rows for all of them if `repeat`. */
static Act *upload_text(const struct Session *session, const float *host, int64_t batch,
                        bool repeat) {
    const struct Backend *be = session->sampler->nets->be;
    int64_t n_text = networks_text_elems(session->sampler->nets);
    int64_t n_bytes = n_text * (int64_t)sizeof(float);
    Act *text = arena_act(session->arena, batch * n_text);
    float *staging = arena_f32(session->arena, batch * n_text);
    if (!repeat) be->upload(be, staging, host, batch * n_bytes);
    for (int64_t b = 0; repeat && b < batch; b++)
        be->upload(be, staging + b * n_text, host, n_bytes);
    be->act_from_f32(be, text, staging, batch * n_text);
    return text;
}

static float *draw_noise(const struct Session *session, int64_t step, enum DrawPurpose purpose,
                         int64_t first, int64_t batch, float *noise) {
    const struct Networks *nets = session->sampler->nets;
    nets->be->normal_fill(nets->be, noise, session->sampler->seed, draw_stream(step, purpose),
                          first, batch, networks_latent_elems(nets));
    return noise;
}

static void run_student(const struct Session *session, int64_t first, int64_t batch, float *x,
                        const float *host_text) {
    const struct Networks *nets = session->sampler->nets;
    struct Student student = networks_student(nets, VIEW_FROZEN);
    int64_t n = batch * networks_latent_elems(nets), outer = student.config->outer_steps;
    float *y1 = arena_f32(session->arena, outer * n);
    for (int64_t k = 0; k < outer; k++)
        draw_noise(session, k, DRAW_SAMPLER_Y1, first, batch, y1 + k * n);
    student.wan.weights = &session->weights;
    if (!session->sampler->together) student.wan.geometry = &nets->whole_geometry;
    student_sample(&student, batch, x, y1, upload_text(session, host_text, batch, false),
                   session->arena, &session->tapes->student);
}

static void run_teacher(const struct Session *session, int64_t batch, float *x,
                        const float *host_text, const float *host_neg_text) {
    struct TeacherSampler how = session->sampler->teacher;
    struct Wan wan = networks_wan(session->sampler->nets, ROLE_TEACHER, VIEW_FROZEN);
    Act *text = upload_text(session, host_text, batch, false), *neg_text = NULL;
    if (how.guidance != 1.0) neg_text = upload_text(session, host_neg_text, batch, true);
    wan.weights = &session->weights;
    if (!session->sampler->together) wan.geometry = &session->sampler->nets->whole_geometry;
    teacher_sample(&wan, how, batch, x, text, neg_text, session->arena, &session->tapes->teacher);
}

/* One batch [batch, C, F, H, W], in the arena. */
static float *run_batch(const struct Session *session, int64_t first, int64_t batch,
                        const float *host_text, const float *host_neg_text) {
    float *x = arena_f32(session->arena, batch * networks_latent_elems(session->sampler->nets));
    draw_noise(session, 0, DRAW_SAMPLER_X1, first, batch, x);
    if (session->sampler->role == ROLE_STUDENT)
        run_student(session, first, batch, x, host_text);
    else
        run_teacher(session, batch, x, host_text, host_neg_text);
    return x;
}

void sampler_run(const struct Sampler *sampler, struct SampleSet set, int64_t batch,
                 struct Arena *arena) {
    const struct Backend *be = sampler->nets->be;
    int64_t n_video = networks_latent_elems(sampler->nets),
            n_text = networks_text_elems(sampler->nets);
    int64_t mark = arena_mark(arena);
    struct Session session = session_begin(sampler, arena);
    for (int64_t at = 0; at < set.n; at += batch) {
        int64_t batch_mark = arena_mark(arena), n = set.n - at < batch ? set.n - at : batch;
        float *x = run_batch(&session, set.first + at, n, set.text + at * n_text, set.neg_text);
        be->download(be, set.clips + at * n_video, x, n * n_video * (int64_t)sizeof *x);
        arena_release(arena, batch_mark);
    }
    session_end(&session);
    arena_release(arena, mark);
}

int64_t sampler_arena_bytes(const struct Sampler *planned, int64_t batch) {
    struct Arena arena;
    arena_init_measuring(&arena, planned->nets->be);
    struct Session session = session_begin(planned, &arena);
    run_batch(&session, 0, batch, NULL, NULL);
    session_end(&session);
    return arena.peak;
}
