/* The machine, and a table of configurations: every stage with its main options. */
#include "plan_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "philox.h"

const struct Machine simple_machine = {.name = "simple",
                                       .flops = 1.0,
                                       .memory_bytes = 1e12,
                                       .memory_bandwidth = 1.0,
                                       .host_bandwidth = 1.0,
                                       .reserved_bytes = 1000.0,
                                       .reached = {1.0, 1.0, 1.0, 1.0, 1.0},
                                       .node_gpus = 8,
                                       .link_bandwidth = 1.0};
static const struct Network simple_network = {
    .name = "simple", .inside = {1.0, 1.0}, .across = {1.0, 1.0}};

struct PlanTarget simple_target(int n_gpus, struct VideoShape video, enum Dtype act_dtype) {
    struct PlanTarget target = {.machine = &simple_machine,
                                .network = &simple_network,
                                .n_gpus = n_gpus,
                                .video = video,
                                .act_dtype = act_dtype};
    struct Error err;
    if (!plan_link(&target.link, &simple_machine, &simple_network, n_gpus, &err))
        fail_msg("%s", err.text);
    return target;
}

void override_all(struct Config *config, const char *const *overrides) {
    struct Error err;
    for (; *overrides; overrides++)
        if (!config_override(config, *overrides, &err)) fail_msg("%s", err.text);
}

const struct VideoShape small_video = {.frames = 4, .height = 16, .width = 16};

static const char *const small_model[] = {"model.dim=96",
                                          "model.ffn_dim=192",
                                          "model.num_heads=4",
                                          "model.num_layers=3",
                                          "model.freq_dim=32",
                                          "model.text_dim=16",
                                          "model.text_len=8",
                                          "model.in_dim=3",
                                          "model.out_dim=3",
                                          "model.patch_size=[1, 4, 4]",
                                          "student.head_blocks=1",
                                          "discriminator.features=[1, 2]",
                                          "discriminator.channels=[8, 16, 16]",
                                          "kd.skip_layers=[1]",
                                          "kd.pairs=4",
                                          "sampler.steps=2",
                                          "init.teacher=unread",
                                          "train.global_batch=9",
                                          "train.micro_batch=2",
                                          NULL};

/* Further keys. */
static const char *const small_configs[SMALL_CONFIGS][6] = {
    {"train.stage=teacher", "train.recompute=none", "ema.decay=0.9"},
    {"train.stage=teacher", "train.recompute=full", "preview.every=1", "optimizer.grad_clip=1"},
    {"train.stage=kd", "train.recompute=none", "student.head_blocks=0", "student.inner_steps=1"},
    {"train.stage=kd", "train.recompute=keep_attention", "student.inner_steps=3", "ema.decay=0.9"},
    {"train.stage=stage1", "train.recompute=none", "stage1.tm_prob=0"},
    {"train.stage=stage1", "train.recompute=full", "stage1.tm_prob=0.5", "student.fusion=concat"},
    {"train.stage=stage1", "train.recompute=full", "stage1.method=tm", "stage1.guidance=1"},
    {"train.stage=stage2", "train.recompute=none", "ema.decay=0.9"},
    {"train.stage=stage2", "train.recompute=keep_attention", "stage2.rollout=false"},
    {"train.stage=stage2", "train.recompute=full", "stage2.gan_weight=0", "stage2.guidance=1"},
    {"train.stage=stage2", "train.recompute=none", "discriminator.type=attention",
     "student.head_blocks=0", "student.inner_steps=1"},
};

void small_config(struct Config *config, int i) {
    struct Error err;
    config_init(config);
    override_all(config, small_model);
    override_all(config, small_configs[i]);
    if (!config_check(config, &err)) fail_msg("%s", err.text);
}

float *small_floats(int64_t n, uint64_t seed) {
    float *x = xmalloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = 0.2f * ((float)philox_uniform(philox(seed, (uint32_t)i, 0, 0, 0).word[0]) - 0.5f);
    return x;
}

void small_weights(struct Networks *nets) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.present[role]) continue;
        float *host = small_floats(networks_table(nets, (enum Role)role)->n_elems, (uint64_t)role);
        weights_upload(&nets->weights[role], host);
        free(host);
    }
}

int n_kinds(const struct Config *config) {
    return config->train.stage == STAGE_STAGE2 ? 2 : 1;
}

bool draws_cost(const struct Config *config) {
    return config->train.stage == STAGE_STAGE1 && config->stage1.tm_prob == 0.5;
}
