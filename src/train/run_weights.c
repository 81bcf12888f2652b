/* Finding the newest valid checkpoint together, reading a group of tensors in large batches, and
 * the weights that a fresh run starts from. */
#include "train/run_weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/checkpoint_folder.h"

char *run_checkpoint_folder(const struct Config *config) {
    return xprintf("%s/checkpoints", config->out);
}

/* ---- the newest checkpoint of a folder ---- */

/* Rank 0 goes through the folder and names a checkpoint after the other ("": that was all); all verify
 * their parts of it. */
static void announce(struct Comm *comm, char path[CKPT_MAX_PATH]) {
    comm->broadcast(comm, path, CKPT_MAX_PATH, 0);
}

static bool verify_together(struct Comm *comm, const char *path, struct Error *reason) {
    return comm_share_error(comm, ckpt_is_intact(path, comm->rank, comm->n_ranks, reason), reason);
}

static bool judge_together(void *context, const char *path) {
    struct Comm *comm = context;
    struct Error reason;
    char announced[CKPT_MAX_PATH];
    snprintf(announced, sizeof announced, "%s", path);
    announce(comm, announced);
    bool intact = verify_together(comm, announced, &reason);
    if (!intact) fprintf(stderr, "tmd: skipping a damaged checkpoint: %s\n", reason.text);
    return intact;
}

bool run_newest_checkpoint(const char *folder, struct Comm *comm, char **path, struct Error *err) {
    char announced[CKPT_MAX_PATH] = "";
    struct Error reason;
    bool ok = true;
    *path = NULL;
    if (comm->rank == 0) {
        ok = ckpt_newest_valid(folder, path, judge_together, comm, err);
        announce(comm, announced);
        if (ok && *path) snprintf(announced, sizeof announced, "%s", *path);
    } else {
        for (announce(comm, announced); *announced; announce(comm, announced))
            verify_together(comm, announced, &reason);
    }
    announce(comm, announced); /* which it is */
    if (comm->rank > 0 && *announced) *path = xstrdup(announced);
    return comm_share_error(comm, ok, err);
}

/* ---- reading ---- */

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

/* The own ranges of some tensors, which are read together. */
struct Batch {
    float *host;
    int64_t n_elems, n;
    int *params;               /* [n] */
    struct CkptWanted *wanted; /* [n] */
};

/* Enough for all threads and the disk to be busy, and not much memory. */
enum { BATCH_ELEMS = 64 << 20 };

/* Room for BATCH_ELEMS, and for any one tensor. */
static struct Batch batch_init(const struct ParamTable *table) {
    int64_t n_most = table->n_elems < BATCH_ELEMS ? table->n_elems : BATCH_ELEMS;
    if (n_most < params_largest(table)) n_most = params_largest(table);
    return (struct Batch){
        .host = xmalloc((size_t)n_most * sizeof(float)),
        .params = xmalloc((size_t)table->n_params * sizeof(int)),
        .wanted = xmalloc((size_t)table->n_params * sizeof(struct CkptWanted)),
    };
}

static void batch_free(struct Batch *batch) {
    free(batch->host);
    free(batch->params);
    free(batch->wanted);
}

static void batch_add(struct Batch *batch, const char *group, const struct Weights *w, int param,
                      struct OwnRange own) {
    const struct ParamDesc *desc = &w->table->params[param];
    batch->params[batch->n] = param;
    batch->wanted[batch->n++] = (struct CkptWanted){.group = group,
                                                    .name = desc->name,
                                                    .n_dims = desc->n_dims,
                                                    .shape = desc->shape,
                                                    .begin = own.begin,
                                                    .end = own.end,
                                                    .out = batch->host + batch->n_elems};
    batch->n_elems += own.end - own.begin;
}

/* Reads what the batch has, hands it over and empties it. */
static bool batch_read(struct Batch *batch, struct Ckpt *ckpt, struct Weights *w, TakeTensor *take,
                       void *context, struct Error *err) {
    if (!ckpt_read_ranges_f32(ckpt, batch->n, batch->wanted, false, err)) return false;
    for (int64_t i = 0; i < batch->n; i++)
        if (batch->wanted[i].begin < batch->wanted[i].end)
            take(context, w, batch->params[i], batch->wanted[i].out);
    batch->n = batch->n_elems = 0;
    return true;
}

bool run_read_group(struct Ckpt *ckpt, const char *group, struct Weights *w, bool partial,
                    TakeTensor *take, void *context, struct Error *err) {
    const struct ParamTable *table = w->table;
    if (!check_group(ckpt, group, table, err)) return false;
    struct Batch batch = batch_init(table);
    bool ok = true;
    for (int p = 0; ok && p < table->n_params; p++) {
        const struct ParamDesc *param = &table->params[p];
        if (partial && is_of_flow_head(table, param) && ckpt_find(ckpt, group, param->name) < 0)
            continue;
        struct OwnRange own = weights_own(w, p);
        if (batch.n_elems + own.end - own.begin > BATCH_ELEMS)
            ok = batch_read(&batch, ckpt, w, take, context, err);
        batch_add(&batch, group, w, p, own);
    }
    ok = ok && batch_read(&batch, ckpt, w, take, context, err);
    batch_free(&batch);
    return ok;
}

/* A run's folder stands for its newest valid checkpoint. */
static bool checkpoint_at(const char *path, struct Comm *comm, char **file, struct Error *err) {
    struct stat info;
    bool is_folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    comm->broadcast(comm, &is_folder, sizeof is_folder, 0); /* ranks must not go different ways */
    if (!is_folder) {
        *file = xstrdup(path);
        return true;
    }
    char *folder = xprintf("%s/checkpoints", path);
    bool ok = run_newest_checkpoint(folder, comm, file, err);
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

static void take_value(void *context, struct Weights *w, int param, const float *host) {
    (void)context;
    weights_put(w, param, host);
}

static bool read_weights(const struct WeightsSource *source, const char *file,
                         struct Weights *weights, struct Error *err) {
    struct Ckpt *ckpt;
    char group[64];
    if (!ckpt_open(file, &ckpt, err)) return false;
    bool ok = group_of(ckpt, source, group, err) &&
              run_read_group(ckpt, group, weights, source->partial, take_value, NULL, err);
    ckpt_close(ckpt);
    if (ok) weights_refresh(weights);
    return ok;
}

bool run_read_weights(const struct WeightsSource *source, struct Weights *weights, struct Comm *comm,
                      struct Error *err) {
    char *file;
    if (!checkpoint_at(source->path, comm, &file, err)) return false;
    bool ok = comm_share_error(comm, read_weights(source, file, weights, err), err);
    free(file);
    return ok;
}

/* ---- starting ---- */

void run_fresh_weights(struct Weights *w, uint64_t seed) {
    float *host = xmalloc((size_t)params_largest(w->table) * sizeof *host);
    for (int p = 0; p < w->table->n_params; p++) {
        struct OwnRange own = weights_own(w, p);
        params_initial_values(w->table, p, seed, own.begin, own.end, host);
        weights_put(w, p, host);
    }
    free(host);
    weights_refresh(w);
}

/* A role's start: initial values, over them what the configured checkpoints give. */
static bool start_role(struct Networks *nets, enum Role role, struct Comm *comm, struct Error *err) {
    static const char *const teacher_first[] = {"teacher", "student"};
    static const char *const student_only[] = {"student"};
    const struct InitConfig *init = &nets->config->init;
    struct Weights *weights = &nets->weights[role];
    struct WeightsSource source = {.use_ema = init->use_ema};
    run_fresh_weights(weights, (uint64_t)nets->config->train.seed);
    if (role == ROLE_DISCRIMINATOR) return true;
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
    return run_read_weights(&source, weights, comm, err);
}

bool run_init_weights(struct Networks *nets, struct Comm *comm, struct Error *err) {
    bool ok = true;
    for (int role = 0; ok && role < ROLE_COUNT; role++) {
        struct Weights *w = &nets->weights[role];
        if (!nets->plan.present[role]) continue;
        ok = start_role(nets, (enum Role)role, comm, err);
        if (ok && w->ema) w->be->copy(w->be, w->ema, w->master, w->n_elems * (int64_t)sizeof(float));
    }
    return ok;
}
