/* The arrays of a role and their names in a checkpoint, which run_save.c uses too, and reading them
 * back. */
#include "train/run_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/checkpoint_folder.h"

int role_arrays(const struct Weights *w, struct RoleArray out[ROLE_MAX_ARRAYS]) {
    int n = 0;
    out[n++] = (struct RoleArray){"param", w->master};
    out[n++] = (struct RoleArray){"adam_m", w->adam_m};
    out[n++] = (struct RoleArray){"adam_v", w->adam_v};
    if (w->ema) out[n++] = (struct RoleArray){"ema", w->ema};
    return n;
}

int64_t run_state_bytes(const struct Networks *nets) {
    struct RoleArray arrays[ROLE_MAX_ARRAYS];
    int64_t n_elems = 0;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (nets->plan.trained[role])
            n_elems += role_arrays(&nets->weights[role], arrays) * nets->weights[role].n_elems;
    return n_elems * (int64_t)sizeof(float);
}

static void take_array(void *context, struct Weights *w, int param, const float *host) {
    struct OwnRange own = weights_own(w, param);
    w->be->upload(w->be, (float *)context + own.at, host,
                  (own.end - own.begin) * (int64_t)sizeof *host);
}

static bool load_role(struct Ckpt *ckpt, struct Weights *w, enum Role role, struct Error *err) {
    struct RoleArray arrays[ROLE_MAX_ARRAYS];
    int n = role_arrays(w, arrays);
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        char group[64];
        snprintf(group, sizeof group, "%s/%s", role_name(role), arrays[i].kind);
        ok = run_read_group(ckpt, group, w, false, take_array, arrays[i].data, err);
    }
    if (ok) weights_refresh(w);
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

bool run_resume_path(const struct Config *config, struct Comm *comm, char **path, struct Error *err) {
    *path = NULL;
    if (strcmp(config->resume, "none") == 0)
        return comm_share_error(comm, comm->rank > 0 || folder_is_unused(config, err), err);
    if (strcmp(config->resume, "auto") != 0) {
        *path = xstrdup(config->resume);
        return true;
    }
    char *folder = run_checkpoint_folder(config);
    bool ok = run_newest_checkpoint(folder, comm, path, err);
    free(folder);
    return ok;
}
