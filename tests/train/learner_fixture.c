/* Sets up a learner as trainer_open.c does, less files and ranks. */
#include "learner_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/cuda/backend_cuda.h"
#include "philox.h"

static const struct VideoShape video = {.frames = 4, .height = 16, .width = 16};

static float *random_floats(int64_t n) {
    float *x = xmalloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)philox_uniform(philox(1, (uint32_t)i, 0, 0, 0).word[0]);
    return x;
}

struct Backend *run_open_backend(void) {
    const char *act = getenv("TMD_TEST_ACT");
    struct BackendCuda options = {.deterministic = true};
    struct Backend *be;
    struct Error err;
    if (!act) return backend_cpu_create();
    TMD_CHECK(dtype_parse(act, &options.act_dtype), "TMD_TEST_ACT=%s", act);
    if (!backend_cuda_create(options, &be, &err)) fail_msg("%s", err.text);
    return be;
}

void run_init(struct Run *r, struct Backend *be, const char *const *overrides, int n_overrides) {
    static const char *const sizes[] = {"model.dim=96",
                                        "model.ffn_dim=384",
                                        "model.num_heads=4",
                                        "model.num_layers=3",
                                        "model.freq_dim=32",
                                        "model.text_dim=16",
                                        "model.text_len=8",
                                        "model.in_dim=3",
                                        "model.out_dim=3",
                                        "student.head_blocks=1",
                                        "model.patch_size=[1, 4, 4]",
                                        "discriminator.features=[1, 2]",
                                        "discriminator.channels=[8, 16, 16]",
                                        "ema.decay=0.9",
                                        "optimizer.grad_clip=1",
                                        "train.micro_batch=2",
                                        "train.global_batch=2",
                                        "init.teacher=unread",
                                        "kd.skip_layers=[1]"};
    struct Error err;
    *r = (struct Run){.be = be, .alone = comm_self_create(be)};
    config_init(&r->config);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!config_override(&r->config, sizes[i], &err)) fail_msg("%s", err.text);
    for (int i = 0; i < n_overrides; i++)
        if (!config_override(&r->config, overrides[i], &err)) fail_msg("%s", err.text);
    if (!config_check(&r->config, &err)) fail_msg("%s", err.text);
    struct RankGrid grid = rank_grid_alone();
    struct MemoryPlan plan = memory_plan_make(&r->config, video, &grid, be->act_dtype);
    parallel_open(&r->parallel, &grid, r->alone);
    r->host_video = random_floats(RUN_BATCH * video_elems(video, r->config.model.in_dim));
    r->host_text = random_floats(RUN_BATCH * r->config.model.text_len * r->config.model.text_dim);
    learner_init(&r->learner, &r->config, be, &r->parallel, video, RUN_BATCH, r->host_text, plan.step);
    struct Networks *nets = &r->learner.nets;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.present[role]) continue;
        float *host = random_floats(networks_table(nets, (enum Role)role)->n_elems);
        params_initialise(networks_table(nets, (enum Role)role), 1, host);
        weights_upload(&nets->weights[role], host);
        free(host);
    }
}

void run_free(struct Run *r) {
    learner_free(&r->learner);
    parallel_close(&r->parallel);
    r->alone->destroy(r->alone);
    r->be->destroy(r->be);
    free(r->host_video);
    free(r->host_text);
    config_free(&r->config);
}

int run_iterate(struct Run *r, enum StepKind kind, int64_t iteration, struct StepScalar *scalars) {
    struct StepInputs in;
    struct StepResult result;
    struct Learner *l = &r->learner;
    struct BatchSamples samples = {.iteration = iteration,
                                   .n = RUN_BATCH,
                                   .video = r->host_video,
                                   .text = r->host_text,
                                   .indices = r->samples};
    struct LearnerPass pass = {.samples = samples, .next = samples, .last = true};
    pass.next.iteration++;
    learner_begin(l, kind);
    int64_t mark = arena_mark(&l->arena);
    struct StepContext ctx = learner_pass(l, kind, &pass, &in, &result);
    int n_scalars = step_scalars(&ctx, &result, scalars);
    arena_release(&l->arena, mark);
    learner_sum(l, kind);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(l, kind, (enum Role)role)) continue;
        double norm = learner_gradient_norm(l, (enum Role)role);
        assert_true(norm > 0.0);
        learner_update(l, (enum Role)role, iteration, iteration + 1, norm);
    }
    return n_scalars;
}
