/* Contradictions: rules between keys, each with the keys that a message about it must show. */
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "config_keys.h"
#include "config_value.h"
#include "model/discriminator.h"

struct Rule {
    bool holds;
    const char *keys; /* labels, separated by spaces */
    const char *must; /* what holds when it holds */
};

/* ---- messages ---- */

/* "model.dim is 96 (configs/tiny/model.yaml:7)" */
static void print_key(const struct Config *config, const char *label, FILE *out) {
    const struct ConfigKey *key = NULL;
    const struct ConfigOrigin *origin = NULL;
    char buffer[CONFIG_LABEL_BYTES];
    for (int i = 0; i < config_n_keys; i++) {
        if (strcmp(config_key_label(buffer, &config_keys[i]), label) != 0) continue;
        key = &config_keys[i];
        origin = &config->origins[i];
    }
    TMD_CHECK(key, "a rule names the unknown key %s", label);
    fprintf(out, "%s is ", label);
    config_value_print(config, key, out);
    if (!origin->source)
        fprintf(out, " (default)");
    else if (origin->line)
        fprintf(out, " (%s:%d)", origin->source, origin->line);
    else
        fprintf(out, " (override)");
}

static bool broken(const struct Config *config, const struct Rule *rule, struct Error *err) {
    char *text = NULL, *labels = xstrdup(rule->keys), *rest = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    TMD_CHECK(out, "out of memory");
    for (char *label = strtok_r(labels, " ", &rest); label; label = strtok_r(NULL, " ", &rest)) {
        if (label != labels) fprintf(out, ", ");
        print_key(config, label, out);
    }
    TMD_CHECK(fclose(out) == 0, "out of memory");
    error_set(err, "%s, but %s", rule->must, text);
    free(labels);
    free(text);
    return false;
}

#define CHECK_RULES(config, rules, err)                                                            \
    check_rules(config, rules, (int)(sizeof(rules) / sizeof *(rules)), err)

static bool check_rules(const struct Config *config, const struct Rule *rules, int n_rules,
                        struct Error *err) {
    for (int i = 0; i < n_rules; i++)
        if (!rules[i].holds) return broken(config, &rules[i], err);
    return true;
}

/* ---- what the stage, or the replay case, uses ---- */

enum { USES_FLOW = 1, USES_STUDENT = 2, USES_CRITICS = 4 };

static unsigned parts_of_stage(enum Stage stage) {
    switch (stage) {
    case STAGE_TEACHER:
        return USES_FLOW;
    case STAGE_KD:
    case STAGE_STAGE1:
        return USES_FLOW | USES_STUDENT;
    case STAGE_STAGE2:
        break;
    }
    return USES_FLOW | USES_STUDENT | USES_CRITICS;
}

/* Kinds of replay cases that are not listed are bare functions of tensors, or of one network. */
static unsigned parts_in_use(const struct Config *config) {
    static const struct {
        const char *kind;
        unsigned parts;
    } cases[] = {
        {"teacher", USES_FLOW},
        {"teacher_sample", USES_FLOW},
        {"sample", USES_FLOW | USES_STUDENT},
        {"kd", USES_FLOW | USES_STUDENT},
        {"stage1", USES_FLOW | USES_STUDENT},
        {"student", USES_FLOW | USES_STUDENT | USES_CRITICS},
        {"critic", USES_FLOW | USES_STUDENT | USES_CRITICS},
    };
    if (!*config->kind) return parts_of_stage(config->train.stage);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(cases[i].kind, config->kind)) return cases[i].parts;
    return 0;
}

static bool is_stage1(const struct Config *config) {
    return *config->kind ? !strcmp(config->kind, "stage1") : config->train.stage == STAGE_STAGE1;
}

static bool is_run_of(const struct Config *config, enum Stage stage) {
    return !*config->kind && config->train.stage == stage;
}

static bool uses_discriminator(const struct Config *config) {
    return (parts_in_use(config) & USES_CRITICS) && config_is_adversarial(config);
}

/* ---- the networks ---- */

static bool all_below(const struct IntList *list, int64_t limit) {
    for (int i = 0; i < list->n; i++)
        if (list->items[i] >= limit) return false;
    return true;
}

static bool is_ascending(const struct IntList *list) {
    for (int i = 1; i < list->n; i++)
        if (list->items[i] <= list->items[i - 1]) return false;
    return true;
}

static bool check_model(const struct Config *config, struct Error *err) {
    const struct ModelConfig *m = &config->model;
    bool flow = parts_in_use(config) & USES_FLOW;
    const struct Rule rules[] = {
        {m->dim % m->num_heads == 0, "model.dim model.num_heads",
         "model.dim must be a multiple of model.num_heads"},
        {m->dim / m->num_heads % 2 == 0, "model.dim model.num_heads",
         "the width of a head, model.dim / model.num_heads, must be even for the rotary embedding"},
        {m->dim / m->num_heads <= 512, "model.dim model.num_heads",
         "the width of a head, model.dim / model.num_heads, must be at most 512"},
        {m->freq_dim % 2 == 0, "model.freq_dim",
         "model.freq_dim must be even: half of it are cosines, half sines"},
        {!flow || m->in_dim == m->out_dim, "model.in_dim model.out_dim",
         "model.out_dim must equal model.in_dim: a velocity has the shape of its latent"},
        {all_below(&config->skip_layers, m->num_layers), "skip_layers model.num_layers",
         "skip_layers must name blocks from 0 to model.num_layers - 1"},
        {!is_run_of(config, STAGE_KD) || all_below(&config->kd.skip_layers, m->num_layers),
         "kd.skip_layers model.num_layers",
         "kd.skip_layers must name blocks from 0 to model.num_layers - 1"},
    };
    return CHECK_RULES(config, rules, err);
}

/* The grid shift(j / n, gamma), j < n, ends in t_max, which the point before must not reach. */
static bool grid_ascends(int64_t n, double gamma, double t_max) {
    double u = (double)(n - 1) / (double)n;
    return gamma * u / ((gamma - 1) * u + 1) < t_max;
}

static bool check_student(const struct Config *config, struct Error *err) {
    const struct StudentConfig *s = &config->student;
    if (!(parts_in_use(config) & USES_STUDENT)) return true;
    const struct Rule rules[] = {
        {s->head_blocks < config->model.num_layers, "student.head_blocks model.num_layers",
         "student.head_blocks must be less than model.num_layers: the backbone needs a block"},
        {s->head_blocks > 0 || !is_stage1(config), "student.head_blocks",
         "stage1 trains the flow head, so student.head_blocks must be at least 1"},
        {grid_ascends(s->outer_steps, s->outer_shift, s->t_max),
         "student.outer_steps student.outer_shift student.t_max",
         "the outer time grid must ascend up to student.t_max"},
        {grid_ascends(s->inner_steps, s->inner_shift, s->t_max),
         "student.inner_steps student.inner_shift student.t_max",
         "the inner time grid must ascend up to student.t_max"},
    };
    return CHECK_RULES(config, rules, err);
}

/* Group norm splits up to 32 channels into groups of about four; wider layers always find a
 * divisor. */
static bool channels_form_groups(const int64_t channels[3]) {
    for (int i = 0; i < 3; i++)
        if (channels[i] >= 4 && channels[i] <= 32 && channels[i] % (channels[i] / 4) != 0)
            return false;
    return true;
}

static bool check_discriminator(const struct Config *config, struct Error *err) {
    const struct DiscriminatorConfig *d = &config->discriminator;
    if (!uses_discriminator(config)) return true;
    const struct Rule rules[] = {
        {d->features.n > 0, "discriminator.features discriminator.type stage2.gan_weight",
         "discriminator.features must name at least one block unless discriminator.type is none or "
         "stage2.gan_weight is 0"},
        {is_ascending(&d->features), "discriminator.features",
         "discriminator.features must be strictly ascending"},
        {all_below(&d->features, config->model.num_layers),
         "discriminator.features model.num_layers",
         "discriminator.features must name blocks from 0 to model.num_layers - 1"},
        {config->model.dim % model_patch_volume(&config->model) == 0, "model.dim model.patch_size",
         "the discriminator spreads a token over its patch, so model.dim must be a multiple of the "
         "patch's volume"},
        {d->type == DISCRIMINATOR_ATTENTION || channels_form_groups(d->channels),
         "discriminator.channels",
         "each of discriminator.channels up to 32 must be a multiple of its group count, a quarter "
         "of it rounded down"},
    };
    return CHECK_RULES(config, rules, err);
}

/* ---- the device ---- */

static bool check_device(const struct Config *config, struct Error *err) {
    char must[96];
    snprintf(must, sizeof must, "model.dim must be at most %d where device.backend is cuda",
             BACKEND_CUDA_MAX_DIM);
    bool holds = config->device.backend != BACKEND_CUDA || config->model.dim <= BACKEND_CUDA_MAX_DIM;
    const struct Rule rules[] = {{holds, "model.dim device.backend", must}};
    return CHECK_RULES(config, rules, err);
}

/* ---- ranks ---- */

static bool check_parallel(const struct Config *config, struct Error *err) {
    const struct ParallelConfig *p = &config->parallel;
    const struct Rule rules[] = {
        {config->model.num_heads % p->sequence == 0, "parallel.sequence model.num_heads",
         "parallel.sequence must divide model.num_heads"},
        {p->replicas == 1 || p->shard != SHARD_NONE, "parallel.replicas parallel.shard",
         "parallel.replicas above 1 needs parallel.shard optimizer or full"}};
    return CHECK_RULES(config, rules, err);
}

/* ---- the stages and the run ---- */

static bool check_stages(const struct Config *config, struct Error *err) {
    const struct Stage1Config *s1 = &config->stage1;
    const struct Stage2Config *s2 = &config->stage2;
    bool has_teacher = *config->init.teacher, has_student = *config->init.student;
    bool stage1 = is_stage1(config), stage2 = parts_in_use(config) & USES_CRITICS;
    const struct Rule rules[] = {
        {!stage1 || s1->s_min < s1->s_max, "stage1.s_min stage1.s_max",
         "stage1.s_min must be less than stage1.s_max"},
        {!stage1 || 2 * s1->fd_delta <= s1->s_max - s1->s_min,
         "stage1.fd_delta stage1.s_min stage1.s_max",
         "stage1.fd_delta must fit twice between stage1.s_min and stage1.s_max"},
        {!stage2 || s2->t_min < s2->t_max, "stage2.t_min stage2.t_max",
         "stage2.t_min must be less than stage2.t_max"},
        {!is_run_of(config, STAGE_KD) || has_teacher || has_student,
         "train.stage init.teacher init.student",
         "stage kd needs weights to start from, init.teacher or init.student"},
        {!is_run_of(config, STAGE_STAGE1) || has_teacher || has_student,
         "train.stage init.teacher init.student",
         "stage stage1 needs weights to start from, init.teacher or init.student"},
        {!is_run_of(config, STAGE_STAGE2) || has_teacher, "train.stage init.teacher",
         "stage stage2 needs the weights of the teacher, init.teacher"},
    };
    return CHECK_RULES(config, rules, err);
}

static bool check_run(const struct Config *config, struct Error *err) {
    const struct TrainConfig *t = &config->train;
    const struct CheckpointConfig *c = &config->checkpoint;
    if (*config->kind) return true;
    const struct Rule rules[] = {
        {config->optimizer.warmup <= t->iterations, "optimizer.warmup train.iterations",
         "optimizer.warmup must not exceed train.iterations"},
        {t->micro_batch <= t->global_batch, "train.micro_batch train.global_batch",
         "train.micro_batch must not exceed train.global_batch"},
        {t->dump_at < t->iterations, "train.dump_at train.iterations",
         "train.dump_at must be an iteration of the run, which counts from 0 to train.iterations - "
         "1"},
        {c->keep_every % c->every == 0, "checkpoint.keep_every checkpoint.every",
         "checkpoint.keep_every must be a multiple of checkpoint.every"},
    };
    return CHECK_RULES(config, rules, err);
}

bool config_check(const struct Config *config, struct Error *err) {
    return check_model(config, err) && check_student(config, err) &&
           check_discriminator(config, err) && check_device(config, err) &&
           check_parallel(config, err) &&
           check_stages(config, err) && check_run(config, err);
}

bool config_check_run(const struct Config *config, struct Error *err) {
    const struct Rule rules[] = {
        {*config->out, "out", "a run needs a folder for what it writes, out"},
        {config->data.files.n > 0, "data.files", "a run needs a data set, data.files"},
    };
    return CHECK_RULES(config, rules, err);
}

/* ---- the shape of the data ---- */

static bool check_layers(const struct Config *config, const struct VideoShape *shape,
                         struct Error *err) {
    enum DiscriminatorType type = config->discriminator.type;
    int starved = discriminator_starved_layer(type, *shape);
    return starved < 0 ||
           error_set(err,
                     "discriminator.type is %s, but latents of %lld frames x %lld rows x %lld "
                     "columns leave nothing for layer %d of its convolutions: expected a larger "
                     "grid, the type attention, or none",
                     config_enum_name("discriminator.type", (int)type), (long long)shape->frames,
                     (long long)shape->height, (long long)shape->width, starved + 1);
}

bool config_check_video(const struct Config *config, const struct VideoShape *shape,
                        struct Error *err) {
    const int64_t *patch = config->model.patch_size;
    if (shape->frames < 1 || shape->height < 1 || shape->width < 1 || shape->frames % patch[0] ||
        shape->height % patch[1] || shape->width % patch[2])
        return error_set(err,
                         "model.patch_size is [%lld, %lld, %lld], which must divide latents of "
                         "%lld frames x %lld rows x %lld columns",
                         (long long)patch[0], (long long)patch[1], (long long)patch[2],
                         (long long)shape->frames, (long long)shape->height,
                         (long long)shape->width);
    int64_t tokens = shape->frames / patch[0] * (shape->height / patch[1]) * (shape->width / patch[2]);
    if (tokens < config->parallel.sequence)
        return error_set(err,
                         "parallel.sequence is %lld, but latents of %lld frames x %lld rows x %lld "
                         "columns have only %lld tokens to split",
                         (long long)config->parallel.sequence, (long long)shape->frames,
                         (long long)shape->height, (long long)shape->width, (long long)tokens);
    return !uses_discriminator(config) || check_layers(config, shape, err);
}
