/* Three steps: the configuration that belongs to the weights, the weights, and an arena of the size
 * that a planned run measures. */
#include "train/sampling_load.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/checkpoint.h"
#include "train/run_weights.h"

/* ---- configuration ---- */

static bool load_from_checkpoint(struct Config *config, const char *path, struct Error *err) {
    struct Ckpt *ckpt;
    const char *yaml;
    if (!ckpt_open(path, &ckpt, err)) return false;
    bool ok = ckpt_get_text(ckpt, CKPT_KEY_CONFIG, &yaml, err) &&
              config_load_text(config, path, yaml, err);
    ckpt_close(ckpt);
    return ok;
}

bool sampling_config_load(struct Config *config, const char *path, struct Error *err) {
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
        return load_from_checkpoint(config, path, err);
    char *file = xprintf("%s/config.yaml", path);
    bool ok = config_load(config, file, err);
    free(file);
    return ok;
}

bool sampling_config_check(struct Config *config, enum Role role, struct Error *err) {
    /* the kinds of replay cases that check exactly what a sampler uses */
    const char *kind = role == ROLE_STUDENT ? "kind=sample" : "kind=teacher_sample";
    return config_override(config, kind, err) && config_check(config, err);
}

/* ---- weights ---- */

static bool load_weights(struct Networks *nets, struct SampledModel model, struct Error *err) {
    static const char *const teacher[] = {"teacher"}, *const student[] = {"student"};
    struct Weights *weights = &nets->weights[model.role];
    bool from_teacher = model.role == ROLE_TEACHER || model.untrained;
    /* what the teacher lacks, the flow head's own tensors, keeps these initial values */
    run_fresh_weights(weights, (uint64_t)nets->config->train.seed);
    struct WeightsSource source = {.path = model.path,
                                   .roles = from_teacher ? teacher : student,
                                   .n_roles = 1,
                                   .use_ema = model.use_ema,
                                   .partial = model.untrained};
    struct Comm *alone = comm_self_create(NULL);
    bool ok = run_read_weights(&source, weights, alone, err);
    alone->destroy(alone);
    return ok;
}

/* ---- the sampler ---- */

static void init_networks(struct Networks *nets, const struct Config *config, enum Role role,
                          const struct Backend *be, struct VideoShape video) {
    struct NetworksPlan plan = {.main = role};
    plan.present[role] = true;
    networks_init(nets, config, be, plan, video);
}

static int64_t measure(const struct LoadedSampler *loaded, struct VideoShape video) {
    struct Backend *plan = backend_plan_create(loaded->be->act_dtype);
    struct Sampler planned = loaded->sampler;
    struct Networks nets;
    init_networks(&nets, loaded->nets.config, planned.role, plan, video);
    planned.nets = &nets;
    int64_t n_bytes = sampler_arena_bytes(&planned, loaded->batch);
    networks_free(&nets);
    plan->destroy(plan);
    return n_bytes;
}

bool loaded_sampler_open(struct LoadedSampler *loaded, const struct Config *config,
                         struct SampledModel model, struct VideoShape video, int64_t batch,
                         struct Error *err) {
    *loaded = (struct LoadedSampler){.batch = batch};
    if (!backend_open(config_device(config), 0, &loaded->be, err)) return false;
    init_networks(&loaded->nets, config, model.role, loaded->be, video);
    loaded->sampler = sampler_init(&loaded->nets, model.role, false);
    if (!load_weights(&loaded->nets, model, err)) {
        loaded_sampler_close(loaded);
        return false;
    }
    arena_init(&loaded->arena, loaded->be, measure(loaded, video));
    return true;
}

void loaded_sampler_close(struct LoadedSampler *loaded) {
    arena_free(&loaded->arena);
    networks_free(&loaded->nets);
    loaded->be->destroy(loaded->be);
    *loaded = (struct LoadedSampler){0};
}

void loaded_sampler_run(struct LoadedSampler *loaded, struct SampleSet set) {
    sampler_run(&loaded->sampler, set, loaded->batch, &loaded->arena);
}
