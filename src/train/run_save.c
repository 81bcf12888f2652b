/* Lists the arrays to save once, copies them at each save, and lets a thread write the copy
 * (data/background.h). */
#include "train/run_save.h"

#include <stdio.h>
#include <stdlib.h>

#include "data/background.h"
#include "data/checkpoint_folder.h"
#include "data/checkpoint_model.h"
#include "data/checkpoint_shards.h"

/* An array of a role's weights, and its copy in host memory. */
struct Copy {
    enum Role role;
    struct RoleArray device;
    int64_t at; /* in the memory of all copies */
};

struct RunSaver {
    const struct Networks *nets;
    struct Comm *ranks;
    struct RankGrid grid;
    struct Background *background;
    bool active;
    struct RunState state; /* what is being saved */
    struct Copy copies[ROLE_COUNT * ROLE_MAX_ARRAYS]; /* none on a rank that does not write */
    int n_copies;
    float *memory;
    bool pinned;
    struct CkptSave save;
    char *folder;
};

static bool is_sharded(const struct RunSaver *s) {
    return s->grid.n_shares > 1;
}

static bool writes(const struct RunSaver *s) {
    return is_sharded(s) ? s->grid.replica == 0 : s->ranks->rank == 0;
}

/* ---- the copy ---- */

/* Lists all that this rank saves. */
static void list_copies(struct RunSaver *s) {
    int64_t n_elems = 0;
    for (int role = 0; role < ROLE_COUNT; role++) {
        const struct Weights *w = &s->nets->weights[role];
        struct RoleArray arrays[ROLE_MAX_ARRAYS];
        int n = s->nets->plan.trained[role] ? role_arrays(w, arrays) : 0;
        for (int i = 0; i < n; i++, n_elems += w->n_elems)
            s->copies[s->n_copies++] = (struct Copy){(enum Role)role, arrays[i], n_elems};
    }
}

/* For all saves: pinning memory takes longer than filling it. */
static void allocate_copies(struct RunSaver *s) {
    const struct Backend *be = s->nets->be;
    int64_t n_bytes = run_state_bytes(s->nets);
    list_copies(s);
    s->memory = be->pinned_alloc(be, n_bytes);
    s->pinned = s->memory;
    if (s->pinned) return;
    fprintf(stderr,
            "tmd: rank %d: the machine does not pin %.1f MB of host memory for checkpoints; each save "
            "will stop the step until its copy is made\n",
            s->ranks->rank, 1e-6 * (double)n_bytes);
    s->memory = xmalloc((size_t)n_bytes);
}

static void free_copies(struct RunSaver *s) {
    const struct Backend *be = s->nets->be;
    if (s->pinned)
        be->pinned_free(be, s->memory);
    else
        free(s->memory);
}

static void start_copies(const struct RunSaver *s) {
    const struct Backend *be = s->nets->be;
    for (const struct Copy *c = s->copies; c < s->copies + s->n_copies; c++)
        be->download_start(be, s->memory + c->at, c->device.data,
                           s->nets->weights[c->role].n_elems * (int64_t)sizeof *s->memory);
}

/* ---- what the thread does ---- */

static bool write_array(struct CkptWriter *writer, const struct RunSaver *s, const struct Copy *copy,
                        struct Error *err) {
    const struct Weights *w = &s->nets->weights[copy->role];
    char group[64];
    snprintf(group, sizeof group, "%s/%s", role_name(copy->role), copy->device.kind);
    bool ok = true;
    for (int p = 0; ok && p < w->table->n_params; p++) {
        const struct ParamDesc *param = &w->table->params[p];
        struct OwnRange own = weights_own(w, p);
        const float *data = s->memory + copy->at + own.at;
        ok = is_sharded(s) ? ckpt_shard_write_f32(writer, group, param->name, param->n_dims,
                                                  param->shape, own.begin, own.end, data, err)
                           : ckpt_write_f32(writer, group, param->name, param->n_dims, param->shape,
                                            data, err);
    }
    return ok;
}

static bool write_arrays(struct CkptWriter *writer, const struct RunSaver *s, struct Error *err) {
    bool ok = true;
    for (int i = 0; ok && i < s->n_copies; i++) ok = write_array(writer, s, &s->copies[i], err);
    return ok;
}

static bool write_counters(struct CkptWriter *writer, const struct RunSaver *s, struct Error *err) {
    char key[64];
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!s->nets->plan.trained[role]) continue;
        snprintf(key, sizeof key, "updates.%s", role_name((enum Role)role));
        if (!ckpt_set_int(writer, key, s->state.updates[role], err)) return false;
    }
    return ckpt_set_int(writer, "skipped", s->state.skipped, err) &&
           ckpt_set_int(writer, "skipped_in_row", s->state.skipped_in_row, err);
}

/* What programs that sample must know. */
static bool write_recipe(struct CkptWriter *writer, const struct RunSaver *s, struct Error *err) {
    return ckpt_set_model(writer, &s->nets->config->model, err) &&
           (!s->nets->plan.present[ROLE_STUDENT] ||
            ckpt_set_student(writer, &s->nets->config->student, err));
}

static bool write_values(struct CkptWriter *writer, const struct RunSaver *s, struct Error *err) {
    char *yaml = config_to_yaml(s->nets->config);
    bool ok = write_counters(writer, s, err) && write_recipe(writer, s, err) &&
              ckpt_set_text(writer, CKPT_KEY_CONFIG, yaml, err);
    free(yaml);
    return ok;
}

static bool close_writer(struct CkptWriter *writer, bool ok, struct Error *err) {
    if (ok) return ckpt_writer_commit(writer, err);
    ckpt_writer_abandon(writer);
    return false;
}

/* The whole checkpoint, or this rank's shard, once it has been copied. */
static bool write_file(void *context, struct Error *err) {
    const struct RunSaver *s = context;
    const struct CkptSave *save = &s->save;
    struct CkptWriter *writer;
    s->nets->be->download_wait(s->nets->be);
    if (is_sharded(s))
        return ckpt_shard_open(save, s->grid.share, &writer, err) &&
               close_writer(writer, write_arrays(writer, s, err), err);
    return ckpt_writer_open(save->folder, save->iteration, save->stage, save->zstd_level, &writer,
                            err) &&
           close_writer(writer, write_arrays(writer, s, err) && write_values(writer, s, err), err);
}

/* ---- the three calls ---- */

bool run_saver_open(struct RunSaver **out, const struct Networks *nets, struct Comm *ranks,
                    const struct RankGrid *grid, struct Error *err) {
    const struct Config *config = nets->config;
    struct RunSaver *s = xcalloc(sizeof *s);
    *s = (struct RunSaver){.nets = nets, .ranks = ranks, .grid = *grid};
    s->folder = run_checkpoint_folder(config);
    s->save = (struct CkptSave){.folder = s->folder,
                                .stage = config_enum_name("train.stage", (int)config->train.stage),
                                .n_shards = grid->n_shares,
                                .zstd_level = (int)config->checkpoint.zstd_level};
    if (writes(s)) allocate_copies(s);
    *out = s;
    s->background = background_open(err);
    return s->background;
}

void run_saver_close(struct RunSaver *s) {
    if (!s) return;
    background_close(s->background);
    free_copies(s);
    free(s->folder);
    free(s);
}

void run_saver_begin(struct RunSaver *s, const struct RunState *state) {
    TMD_CHECK(!s->active, "a save of iteration %lld begins while that of %lld is under way",
              (long long)state->iteration, (long long)s->state.iteration);
    s->active = true;
    s->state = *state;
    s->save.iteration = state->iteration;
    if (is_sharded(s)) {
        s->save.id = s->ranks->rank == 0 ? ckpt_save_id() : 0;
        s->ranks->broadcast(s->ranks, &s->save.id, sizeof s->save.id, 0);
    }
    if (!writes(s)) return;
    start_copies(s);
    background_submit(s->background, write_file, s);
}

bool run_saver_busy(const struct RunSaver *s) {
    return s->active && !background_is_idle(s->background);
}

/* Makes one checkpoint of the shards; without it they are garbage. */
static bool join_shards(const struct RunSaver *s, struct Error *err) {
    struct CkptWriter *writer;
    if (ckpt_master_open(&s->save, &writer, err) &&
        close_writer(writer, write_values(writer, s, err), err))
        return true;
    ckpt_save_abandon(&s->save);
    return false;
}

static bool complete(const struct RunSaver *s, struct Error *err) {
    const struct CheckpointConfig *c = &s->nets->config->checkpoint;
    if (is_sharded(s) && !join_shards(s, err)) return false;
    char *path = ckpt_step_path(s->folder, s->save.iteration);
    bool ok = ckpt_rotate(s->folder, c->keep_last, c->keep_every, path, err);
    free(path);
    return ok;
}

bool run_saver_finish(struct RunSaver *s, int *exit_code) {
    struct Error err = {0};
    if (!s->active) return true;
    s->active = false;
    bool ok = background_wait(s->background, &err);
    if (!comm_agree(s->ranks, ok, &err, exit_code)) {
        if (is_sharded(s) && s->ranks->rank == 0) ckpt_save_abandon(&s->save);
        return false;
    }
    ok = s->ranks->rank != 0 || complete(s, &err);
    return comm_agree(s->ranks, ok, &err, exit_code);
}
