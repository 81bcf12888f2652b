/* Reads a case, runs the step or sampler of its kind, and names what that computed. */
#include "train/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/sampler.h"
#include "model/time_grid.h"
#include "train/replay_case.h"
#include "train/weights_file.h"

/* What the kinds that are no training step evaluate. */
enum ReplayKind { REPLAY_STEP, REPLAY_DIT, REPLAY_SAMPLE, REPLAY_TEACHER_SAMPLE, REPLAY_ADAMW };

struct Replay {
    struct ReplayCase files;
    enum ReplayKind kind;
    enum StepKind step;
    struct Networks nets;
    struct Arena arena;
    struct StepTapes *tapes;
    struct GeneratorTape *generator;
    struct WanTape *wan;
    struct TensorList *out; /* NULL: only measuring */
};

/* Without weight in the loss it is evaluated all the same, if the case brings one. */
static bool has_discriminator(const struct Replay *r) {
    const struct Config *config = &r->files.config;
    enum DiscriminatorType type = config->discriminator.type;
    if (config_is_adversarial(config)) return true;
    if (type == DISCRIMINATOR_NONE || config->discriminator.features.n == 0 ||
        discriminator_starved_layer(type, r->files.video) >= 0)
        return false;
    char *path = xprintf("%s/discriminator.safetensors", r->files.folder);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* What holds of a discriminator with weight must hold of one without that is evaluated. */
static bool check_weightless(const struct Replay *r, struct Error *err) {
    struct Config weighted = r->files.config;
    weighted.stage2.gan_weight = 1.0;
    return !has_discriminator(r) || config_check(&weighted, err);
}

static struct NetworksPlan plan_of(const struct Replay *r) {
    struct NetworksPlan plan = {.main = ROLE_STUDENT};
    if (r->kind == REPLAY_STEP) {
        for (int role = 0; role < ROLE_COUNT; role++) {
            bool used = role != ROLE_DISCRIMINATOR || has_discriminator(r);
            plan.trained[role] = used && step_trains(r->step, (enum Role)role);
            plan.present[role] = used && step_reads(r->step, (enum Role)role);
        }
    } else {
        enum Role role = r->kind == REPLAY_SAMPLE ? ROLE_STUDENT : ROLE_TEACHER;
        plan.present[role] = true;
        plan.trained[role] = r->kind == REPLAY_DIT;
    }
    return plan;
}

static void add_video_of(const struct Replay *r, const char *name, const float *device,
                         int64_t channels) {
    const struct ReplayCase *f = &r->files;
    int64_t shape[] = {f->batch, channels, f->video.frames, f->video.height, f->video.width};
    if (!r->out) return;
    float *data = tensor_list_add(r->out, name, 5, shape);
    f->be->download(f->be, data, device,
                    r->out->items[r->out->n - 1].n_elems * (int64_t)sizeof *data);
}

static void add_video(const struct Replay *r, const char *name, const float *device) {
    add_video_of(r, name, device, r->files.config.model.in_dim);
}

static void add_gradients(const struct Replay *r) {
    char prefix[64];
    for (int role = 0; r->out && role < ROLE_COUNT; role++) {
        const struct Weights *w = &r->nets.weights[role];
        if (!r->nets.plan.trained[role]) continue;
        snprintf(prefix, sizeof prefix, "grad.%s.", role_name((enum Role)role));
        weights_list_gradients(w, prefix, r->out);
    }
}

static void add_squares(const struct Replay *r, const double *device) {
    double host[STUDENT_MAX_BATCH];
    int64_t batch = r->files.batch;
    if (!r->out) return;
    r->files.be->download(r->files.be, host, device, batch * (int64_t)sizeof(double));
    float *data = tensor_list_add(r->out, "out.sq", 1, &batch);
    for (int64_t b = 0; b < batch; b++) data[b] = (float)host[b];
}

static bool run_step(struct Replay *r, struct Error *err) {
    struct StepInputs in = {0};
    struct StepResult result;
    struct StepScalar scalars[STEP_MAX_SCALARS];
    struct StepVideo videos[STEP_MAX_VIDEOS];
    char name[TENSOR_NAME_MAX];
    if (!replay_case_step_inputs(&r->files, r->step, &in, err)) return false;
    struct StepContext ctx = {.nets = &r->nets,
                              .arena = &r->arena,
                              .tapes = r->tapes,
                              .sample_weight = 1.0 / (double)r->files.batch,
                              .last = true,
                              .all_outputs = true};
    step_run(&ctx, r->step, &in, &result);
    int n_scalars = step_scalars(&ctx, &result, scalars), n_videos = step_videos(&result, videos);
    for (int i = 0; i < n_scalars; i++) {
        if (scalars[i].derived) continue;
        snprintf(name, sizeof name, "out.%s", scalars[i].name);
        if (r->out) tensor_list_add_scalar(r->out, name, scalars[i].value);
    }
    for (int i = 0; i < n_videos; i++) {
        snprintf(name, sizeof name, "out.%s", videos[i].name);
        add_video(r, name, videos[i].video);
    }
    if (r->step == STEP_STAGE1) add_squares(r, result.stage1.squares);
    add_gradients(r);
    return true;
}

static bool run_dit(struct Replay *r, struct Error *err) {
    struct ReplayCase *f = &r->files;
    struct Wan wan = networks_wan(&r->nets, ROLE_TEACHER, VIEW_TRAINED);
    struct WanInputs in = {.batch = f->batch, .skip_layers = &f->config.skip_layers};
    const float *grad_out;
    double t[STUDENT_MAX_BATCH];
    if (!replay_case_video(f, "x", &in.x, err) || !replay_case_text(f, "context", &in.text, err) ||
        !replay_case_channels(f, "grad_out", f->config.model.out_dim, &grad_out, err) || !replay_case_times(f, "t", t, err))
        return false;
    in.host_t = t;
    int64_t n = f->batch * networks_latent_elems(&r->nets);
    int64_t n_out = f->batch * video_elems(f->video, f->config.model.out_dim);
    float *velocity = arena_f32(&r->arena, n_out), *dx = arena_f32(&r->arena, n);
    wan_forward(&wan, in, velocity, NULL, networks_keep(&r->nets), &r->arena, r->wan);
    wan_backward(&wan, dx, grad_out, NULL, r->wan, true, &r->arena);
    add_video_of(r, "out.velocity", velocity, f->config.model.out_dim);
    add_video(r, "grad.x", dx);
    add_gradients(r);
    return true;
}

static bool run_sample(struct Replay *r, struct Error *err) {
    struct ReplayCase *f = &r->files;
    const struct StudentConfig *sc = &f->config.student;
    struct Student student = networks_student(&r->nets, VIEW_FROZEN);
    const float *x1, *y1;
    const Act *text;
    if (!replay_case_video(f, "x1", &x1, err) || !replay_case_text(f, "context", &text, err) ||
        !replay_case_videos(f, "y1", sc->outer_steps, &y1, err))
        return false;
    int64_t n = f->batch * networks_latent_elems(&r->nets);
    float *x = arena_f32(&r->arena, n);
    f->be->copy(f->be, x, x1, n * (int64_t)sizeof *x);
    student_sample(&student, f->batch, x, y1, text, &r->arena, r->generator);
    add_video(r, "out.x", x);
    if (r->out)
        tensor_list_add_scalar(r->out, "out.effective_nfe",
                               effective_nfe(sc->outer_steps, sc->inner_steps, sc->head_blocks,
                                             f->config.model.num_layers));
    return true;
}

static bool run_teacher_sample(struct Replay *r, struct Error *err) {
    struct ReplayCase *f = &r->files;
    struct Wan wan = networks_wan(&r->nets, ROLE_TEACHER, VIEW_FROZEN);
    const struct SamplerConfig *sampler = &f->config.sampler;
    const float *x1;
    const Act *text, *neg_text;
    if (!replay_case_video(f, "x1", &x1, err) || !replay_case_text(f, "context", &text, err) ||
        !replay_case_text(f, "neg_context", &neg_text, err))
        return false;
    int64_t n = f->batch * networks_latent_elems(&r->nets);
    float *x = arena_f32(&r->arena, n);
    f->be->copy(f->be, x, x1, n * (int64_t)sizeof *x);
    struct TeacherSampler how = {.steps = sampler->steps,
                                 .shift = sampler->shift,
                                 .guidance = sampler->guidance,
                                 .skip_layers = &f->config.skip_layers};
    teacher_sample(&wan, how, f->batch, x, text, neg_text, &r->arena, r->wan);
    add_video(r, "out.x", x);
    return true;
}

static bool run_kind(struct Replay *r, struct Error *err) {
    switch (r->kind) {
    case REPLAY_STEP: return run_step(r, err);
    case REPLAY_DIT: return run_dit(r, err);
    case REPLAY_SAMPLE: return run_sample(r, err);
    case REPLAY_TEACHER_SAMPLE: return run_teacher_sample(r, err);
    case REPLAY_ADAMW: break; /* no model case */
    }
    return false;
}

static bool load_weights(struct Replay *r, struct Error *err) {
    char path[PATH_MAX];
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!r->nets.plan.present[role]) continue;
        snprintf(path, sizeof path, "%s/%s.safetensors", r->files.folder, role_name((enum Role)role));
        if (!weights_read_safetensors(&r->nets.weights[role], path, err)) return false;
    }
    return true;
}

/* Runs the case on `be`.  With arena_bytes < 0 it only measures, on a planning backend. */
static bool run_on(struct Replay *r, const struct Backend *be, int64_t arena_bytes,
                   struct TensorList *out, int64_t *peak, struct Error *err) {
    bool measure = arena_bytes < 0;
    r->files.be = be;
    r->out = out;
    networks_init(&r->nets, &r->files.config, be, plan_of(r), r->files.video);
    if (measure)
        arena_init_measuring(&r->arena, be);
    else
        arena_init(&r->arena, be, arena_bytes);
    bool ok = (measure || load_weights(r, err)) && run_kind(r, err);
    *peak = r->arena.peak;
    arena_free(&r->arena);
    networks_free(&r->nets);
    replay_case_release(&r->files);
    return ok;
}

static bool run_adamw(const struct ReplayCase *f, const struct Backend *be, struct TensorList *out,
                      struct Error *err) {
    const struct OptimizerConfig *o = &f->config.optimizer;
    int64_t n = -1;
    float *param, *grads;
    if (!replay_case_read(f, "param", 1, &n, &param, err)) return false;
    int64_t shape[] = {-1, n}, n_bytes = n * (int64_t)sizeof *param;
    if (!replay_case_read(f, "grads", 2, shape, &grads, err)) {
        free(param);
        return false;
    }
    float *device[4]; /* w, g, m, v */
    for (int i = 0; i < 4; i++) device[i] = be->memory_alloc(be, n_bytes);
    Act *compute = be->memory_alloc(be, n_bytes);
    be->upload(be, device[0], param, n_bytes);
    for (int64_t k = 0; k < shape[0]; k++) {
        struct AdamW how = {o->lr, o->betas[0], o->betas[1], o->eps, o->weight_decay, 1.0, k + 1};
        be->upload(be, device[1], grads + k * n, n_bytes);
        be->adamw(be, device[0], compute, device[2], device[3], device[1], how, n);
    }
    static const char *const names[] = {"out.param", NULL, "out.m", "out.v"};
    for (int i = 0; i < 4; i++) {
        if (names[i])
            be->download(be, tensor_list_add(out, names[i], 1, &n), device[i], n_bytes);
        be->memory_free(be, device[i]);
    }
    be->memory_free(be, compute);
    free(param);
    free(grads);
    return true;
}

static bool parse_kind(struct Replay *r, struct Error *err) {
    const char *kind = r->files.config.kind;
    static const struct {
        const char *name;
        enum ReplayKind kind;
    } kinds[] = {{"dit", REPLAY_DIT},
                 {"sample", REPLAY_SAMPLE},
                 {"teacher_sample", REPLAY_TEACHER_SAMPLE},
                 {"adamw", REPLAY_ADAMW}};
    r->kind = REPLAY_STEP;
    if (step_kind_parse(kind, &r->step)) return true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kind, kinds[i].name) != 0) continue;
        r->kind = kinds[i].kind;
        return true;
    }
    return error_set(err,
                     "%s/case.yaml: kind is '%s', expected dit, teacher, kd, stage1, student, critic, "
                     "sample, teacher_sample or adamw",
                     r->files.folder, kind);
}

static bool run_model_case(struct Replay *r, const struct Backend *be, struct TensorList *out,
                           struct Error *err) {
    struct Backend *plan = backend_plan_create(be->act_dtype);
    int64_t peak = 0;
    bool noise_only = r->kind == REPLAY_SAMPLE || r->kind == REPLAY_TEACHER_SAMPLE;
    bool ok = replay_case_shape(&r->files, noise_only ? "x1" : "x", err) &&
              check_weightless(r, err) && run_on(r, plan, -1, NULL, &peak, err) &&
              run_on(r, be, peak, out, &peak, err);
    plan->destroy(plan);
    return ok;
}

bool replay_run(const char *folder, const struct Backend *be, struct TensorList *out,
                struct Error *err) {
    struct Replay *r = xcalloc(sizeof *r);
    if (!replay_case_open(&r->files, folder, err)) {
        free(r);
        return false;
    }
    r->tapes = step_tapes_create();
    r->generator = xcalloc(sizeof *r->generator);
    r->wan = xcalloc(sizeof *r->wan);
    bool ok = parse_kind(r, err) && config_check(&r->files.config, err) &&
              (r->kind == REPLAY_ADAMW ? run_adamw(&r->files, be, out, err)
                                       : run_model_case(r, be, out, err));
    step_tapes_destroy(r->tapes);
    free(r->generator);
    free(r->wan);
    replay_case_close(&r->files);
    free(r);
    return ok;
}
