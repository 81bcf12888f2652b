#include "train/run_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/checkpoint_folder.h"
#include "data/checkpoint_model.h"
#include "data/checkpoint_writer.h"

char *run_checkpoint_folder(const struct Config *config) {
    return xprintf("%s/checkpoints", config->out);
}

/* ---- saving ---- */

struct Buffer {
    const char *kind; /* second part of the group's name */
    const float *data;
};

static int buffers_of(const struct Weights *w, struct Buffer out[4]) {
    int n = 0;
    out[n++] = (struct Buffer){"param", w->master};
    out[n++] = (struct Buffer){"adam_m", w->adam_m};
    out[n++] = (struct Buffer){"adam_v", w->adam_v};
    if (w->ema) out[n++] = (struct Buffer){"ema", w->ema};
    return n;
}

static bool save_buffer(struct CkptWriter *writer, const struct Weights *w, enum Role role,
                        struct Buffer buffer, float *host, struct Error *err) {
    char group[64];
    snprintf(group, sizeof group, "%s/%s", role_name(role), buffer.kind);
    for (int p = 0; p < w->table->n_params; p++) {
        const struct ParamDesc *param = &w->table->params[p];
        w->be->download(w->be, host, buffer.data + param->offset,
                        param->n_elems * (int64_t)sizeof *host);
        if (!ckpt_write_f32(writer, group, param->name, param->n_dims, param->shape, host, err))
            return false;
    }
    return true;
}

static int64_t largest_param(const struct ParamTable *table) {
    int64_t largest = 0;
    for (int p = 0; p < table->n_params; p++)
        if (table->params[p].n_elems > largest) largest = table->params[p].n_elems;
    return largest;
}

static bool save_roles(struct CkptWriter *writer, const struct Networks *nets, struct Error *err) {
    bool ok = true;
    for (int role = 0; ok && role < ROLE_COUNT; role++) {
        struct Buffer buffers[4];
        const struct Weights *w = &nets->weights[role];
        if (!nets->plan.trained[role]) continue;
        float *host = xmalloc((size_t)largest_param(w->table) * sizeof *host);
        int n = buffers_of(w, buffers);
        for (int i = 0; ok && i < n; i++)
            ok = save_buffer(writer, w, (enum Role)role, buffers[i], host, err);
        free(host);
    }
    return ok;
}

static bool save_counters(struct CkptWriter *writer, const struct RunState *state,
                          const struct Networks *nets, struct Error *err) {
    char key[64];
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.trained[role]) continue;
        snprintf(key, sizeof key, "updates.%s", role_name((enum Role)role));
        if (!ckpt_set_int(writer, key, state->updates[role], err)) return false;
    }
    return ckpt_set_int(writer, "skipped", state->skipped, err) &&
           ckpt_set_int(writer, "skipped_in_row", state->skipped_in_row, err);
}

/* What programs that sample must know. */
static bool save_recipe(struct CkptWriter *writer, const struct Networks *nets, struct Error *err) {
    return ckpt_set_model(writer, &nets->config->model, err) &&
           (!nets->plan.present[ROLE_STUDENT] ||
            ckpt_set_student(writer, &nets->config->student, err));
}

static bool save_config(struct CkptWriter *writer, const struct Config *config, struct Error *err) {
    char *yaml = config_to_yaml(config);
    bool ok = ckpt_set_text(writer, CKPT_KEY_CONFIG, yaml, err);
    free(yaml);
    return ok;
}

bool run_state_save(const struct RunState *state, const struct Networks *nets, struct Error *err) {
    const struct Config *config = nets->config;
    const struct CheckpointConfig *c = &config->checkpoint;
    char *folder = run_checkpoint_folder(config);
    struct CkptWriter *writer;
    const char *stage = config_enum_name("train.stage", (int)config->train.stage);
    bool ok = ckpt_writer_open(folder, state->iteration, stage, (int)c->zstd_level, &writer, err);
    if (ok) {
        ok = save_roles(writer, nets, err) && save_counters(writer, state, nets, err) &&
             save_recipe(writer, nets, err) && save_config(writer, config, err);
        if (ok)
            ok = ckpt_writer_commit(writer, err);
        else
            ckpt_writer_abandon(writer);
    }
    if (ok) {
        char *path = ckpt_step_path(folder, state->iteration);
        ok = ckpt_rotate(folder, c->keep_last, c->keep_every, path, err);
        free(path);
    }
    free(folder);
    return ok;
}

/* ---- loading ---- */

/* A group that holds more than the table would be cut down to size silently: a deeper model's. */
static bool check_group(const struct Ckpt *ckpt, const char *group, const struct ParamTable *table,
                        struct Error *err) {
    int64_t first = 0, n = ckpt_group(ckpt, group, &first);
    for (int64_t i = first; i < first + n; i++)
        if (params_find(table, ckpt_info(ckpt, i)->name) < 0)
            return error_set(err, "%s: tensor '%s/%s' has no place in the configured model",
                             ckpt_path(ckpt), group, ckpt_info(ckpt, i)->name);
    return true;
}

static bool is_of_flow_head(const struct ParamTable *table, const struct ParamDesc *param) {
    return strcmp(table->units[param->unit].name, "flow_head") == 0;
}

static bool read_tensors(struct Ckpt *ckpt, const char *group, const struct ParamTable *table,
                         bool partial, float *host, struct Error *err) {
    if (!check_group(ckpt, group, table, err)) return false;
    for (int p = 0; p < table->n_params; p++) {
        const struct ParamDesc *param = &table->params[p];
        if (partial && is_of_flow_head(table, param) && ckpt_find(ckpt, group, param->name) < 0)
            continue;
        if (!ckpt_read_f32(ckpt, group, param->name, param->n_dims, param->shape, false,
                           host + param->offset, err))
            return false;
    }
    return true;
}

static bool load_role(struct Ckpt *ckpt, struct Weights *w, enum Role role, struct Error *err) {
    struct Buffer buffers[4];
    int n = buffers_of(w, buffers);
    int64_t n_bytes = w->table->n_elems * (int64_t)sizeof(float);
    float *host = xcalloc((size_t)n_bytes);
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        char group[64];
        snprintf(group, sizeof group, "%s/%s", role_name(role), buffers[i].kind);
        ok = read_tensors(ckpt, group, w->table, false, host, err);
        if (ok) w->be->upload(w->be, (void *)(uintptr_t)buffers[i].data, host, n_bytes);
    }
    if (ok) w->be->weights_cast(w->be, w->compute, w->master, w->table->n_elems);
    free(host);
    return ok;
}

static bool load_counters(struct Ckpt *ckpt, struct RunState *state, const struct Networks *nets,
                          struct Error *err) {
    char key[64];
    state->iteration = ckpt_iteration(ckpt);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.trained[role]) continue;
        snprintf(key, sizeof key, "updates.%s", role_name((enum Role)role));
        if (!ckpt_get_int(ckpt, key, &state->updates[role], err)) return false;
    }
    return ckpt_get_int(ckpt, "skipped", &state->skipped, err) &&
           ckpt_get_int(ckpt, "skipped_in_row", &state->skipped_in_row, err);
}

bool run_state_load(struct RunState *state, struct Networks *nets, const char *path,
                    struct Error *err) {
    struct Ckpt *ckpt;
    const char *stage = config_enum_name("train.stage", (int)nets->config->train.stage);
    if (!ckpt_open(path, &ckpt, err)) return false;
    bool ok = strcmp(ckpt_stage(ckpt), stage) == 0 ||
              error_set(err, "%s: is a checkpoint of stage %s, resume needs one of stage %s", path,
                        ckpt_stage(ckpt), stage);
    ok = ok && load_counters(ckpt, state, nets, err);
    for (int role = 0; ok && role < ROLE_COUNT; role++)
        if (nets->plan.trained[role])
            ok = load_role(ckpt, &nets->weights[role], (enum Role)role, err);
    ckpt_close(ckpt);
    return ok;
}

static void report_skipped(void *context, const char *path, const char *reason) {
    (void)context, (void)path;
    fprintf(stderr, "tmd: skipping a damaged checkpoint: %s\n", reason);
}

/* A new run must not mix its checkpoints with those of another. */
static bool folder_is_unused(const struct Config *config, struct Error *err) {
    char *folder = run_checkpoint_folder(config);
    int64_t n = 0;
    bool ok = ckpt_folder_count(folder, &n, err);
    if (ok && n)
        ok = error_set(err, "%s: holds %lld checkpoints of an earlier run; go on with resume=auto, or "
                            "choose another folder with out=", folder, (long long)n);
    free(folder);
    return ok;
}

bool run_resume_path(const struct Config *config, char **path, struct Error *err) {
    *path = NULL;
    if (strcmp(config->resume, "none") == 0) return folder_is_unused(config, err);
    if (strcmp(config->resume, "auto") != 0) {
        *path = xstrdup(config->resume);
        return true;
    }
    char *folder = run_checkpoint_folder(config);
    bool ok = ckpt_newest_valid(folder, path, report_skipped, NULL, err);
    free(folder);
    return ok;
}

/* ---- starting ---- */

/* A run's folder stands for its newest valid checkpoint. */
static bool checkpoint_at(const char *path, bool quiet, char **file, struct Error *err) {
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        *file = xstrdup(path);
        return true;
    }
    char *folder = xprintf("%s/checkpoints", path);
    bool ok = ckpt_newest_valid(folder, file, quiet ? NULL : report_skipped, NULL, err);
    if (ok && !*file) ok = error_set(err, "%s: holds no checkpoint", folder);
    free(folder);
    return ok;
}

static bool group_of(struct Ckpt *ckpt, const struct WeightsSource *source, char group[64],
                     struct Error *err) {
    int64_t first;
    for (int i = 0; i < source->n_roles; i++)
        for (int ema = source->use_ema; ema >= 0; ema--) {
            snprintf(group, 64, "%s/%s", source->roles[i], ema ? "ema" : "param");
            if (ckpt_group(ckpt, group, &first) > 0) return true;
        }
    return error_set(err, "%s: holds no weights of the %s", ckpt_path(ckpt), source->roles[0]);
}

bool run_read_weights(const struct WeightsSource *source, const struct ParamTable *table, float *host,
                      struct Error *err) {
    struct Ckpt *ckpt;
    char *file, group[64];
    if (!checkpoint_at(source->path, source->quiet, &file, err)) return false;
    bool ok = ckpt_open(file, &ckpt, err);
    if (ok) {
        ok = group_of(ckpt, source, group, err) &&
             read_tensors(ckpt, group, table, source->partial, host, err);
        ckpt_close(ckpt);
    }
    free(file);
    return ok;
}

/* A role's start: initial values, over them what the configured checkpoints give. */
static bool start_role(struct Networks *nets, enum Role role, bool quiet, float *host,
                       struct Error *err) {
    static const char *const teacher_first[] = {"teacher", "student"};
    static const char *const student_only[] = {"student"};
    const struct Config *config = nets->config;
    const struct InitConfig *init = &config->init;
    const struct ParamTable *table = networks_table(nets, role);
    params_initialise(table, (uint64_t)config->train.seed, host);
    if (role == ROLE_DISCRIMINATOR) return true;
    struct WeightsSource source = {.use_ema = init->use_ema, .quiet = quiet};
    if (role == ROLE_STUDENT && *init->student) {
        source.path = init->student;
        source.roles = student_only;
        source.n_roles = 1;
    } else if (*init->teacher) {
        /* the student begins as the teacher, its flow head's own tensors at their initial values */
        source.path = init->teacher;
        source.roles = teacher_first;
        source.n_roles = 2;
        source.partial = role == ROLE_STUDENT;
    } else {
        return true;
    }
    return run_read_weights(&source, table, host, err);
}

bool run_init_weights(struct Networks *nets, bool quiet, struct Error *err) {
    bool ok = true;
    for (int role = 0; ok && role < ROLE_COUNT; role++) {
        if (!nets->plan.present[role]) continue;
        int64_t n_elems = networks_table(nets, (enum Role)role)->n_elems;
        float *host = xmalloc((size_t)n_elems * sizeof *host);
        ok = start_role(nets, (enum Role)role, quiet, host, err);
        if (ok) weights_upload(&nets->weights[role], host);
        if (ok && nets->weights[role].ema)
            nets->be->upload(nets->be, nets->weights[role].ema, host,
                             n_elems * (int64_t)sizeof *host);
        free(host);
    }
    return ok;
}
