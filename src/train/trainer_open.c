/* Setting a run up, in phases.  After each phase the ranks agree that all of them have succeeded;
 * so an error on one rank ends all of them in order, and a phase may rely on the ones before it on
 * every rank.  Collective work that waits for all ranks has phases of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/atomic_file.h"
#include "train/data_fit.h"
#include "train/folders.h"
#include "train/kd_pairs.h"
#include "train/run_signals.h"
#include "train/trainer.h"

static bool start_watchdog(struct Trainer *t, struct Error *err) {
    return watchdog_start(t->comm, (double)t->config->train.watchdog, &t->watchdog, err);
}

/* This rank's place among all, and its samples of every global batch. */
static bool take_place(struct Trainer *t, struct Error *err) {
    const struct Config *config = t->config;
    if (!rank_grid_init(&t->grid, config, t->comm->n_ranks, t->comm->rank, err)) return false;
    t->first_in_batch = batch_share_start(config, &t->grid, t->grid.data_rank);
    t->n_local = batch_share(config, &t->grid);
    return true;
}

static bool open_device(struct Trainer *t, struct Error *err) {
    return backend_open(config_device(t->config), t->comm->local_rank, &t->be, err);
}

/* A phase of its own, because it is collective: every rank must have its device before. */
static bool join_devices(struct Trainer *t, struct Error *err) {
    (void)err;
    t->device_comm = comm_for_backend(t->comm, t->be);
    parallel_open(&t->parallel, &t->grid, t->device_comm);
    return true;
}

static bool open_data(struct Trainer *t, struct Error *err) {
    const struct StringList *files = &t->config->data.files;
    t->dataset = dataset_open(files->items, files->n, err);
    return t->dataset && data_fits(t->config, t->dataset, files->items[0], err);
}

static bool make_folders(struct Trainer *t, struct Error *err) {
    if (t->comm->rank) return true;
    char *checkpoints = run_checkpoint_folder(t->config);
    bool ok = folder_make(checkpoints, err);
    free(checkpoints);
    return ok;
}

/* A late phase, once the run is known to start: a refused run must not overwrite another's file. */
static bool write_resolved_config(struct Trainer *t, struct Error *err) {
    if (t->comm->rank) return true;
    char *path = xprintf("%s/config.yaml", t->config->out), *yaml = config_to_yaml(t->config);
    bool ok = atomic_file_write(path, yaml, strlen(yaml), err);
    free(yaml);
    free(path);
    return ok;
}

/* Checked before anything is loaded; the error stands below the table of the memory plan. */
static bool fits(struct Trainer *t, struct Error *err) {
    int64_t available = t->be->memory_available(t->be);
    return t->memory_bytes <= available ||
           error_set(err, "the run does not fit the memory of its device (%s): expected at most %.1f MB, "
                          "got %.1f MB; a smaller train.micro_batch or train.recompute=full needs less",
                     t->be->name, 1e-6 * (double)available, 1e-6 * (double)t->memory_bytes);
}

static bool allocate(struct Trainer *t, struct Error *err) {
    const struct Config *config = t->config;
    struct VideoShape video = data_video_shape(dataset_info(t->dataset));
    struct MemoryPlan plan = memory_plan_make(config, video, &t->grid, t->be->act_dtype);
    int64_t capacity = t->n_local < config->train.micro_batch ? t->n_local : config->train.micro_batch;
    t->memory_bytes = memory_plan_total(&plan);
    if (t->comm->rank == 0) memory_plan_print(&plan, stdout);
    if (!fits(t, err)) return false;
    int64_t n_text = config->model.text_len * config->model.text_dim;
    float *negative = xmalloc((size_t)n_text * sizeof *negative);
    bool ok = dataset_read_negative(t->dataset, config->model.text_len, negative, err);
    if (ok)
        learner_init(&t->learner, config, t->be, &t->parallel, video, capacity, negative, plan.step);
    free(negative);
    return ok;
}

/* Prints where the run runs, and checks that its checkpoints fit the disk; before anything is
 * loaded. */
static bool survey(struct Trainer *t, struct Error *err) {
    struct Environment *env = &t->environment;
    environment_survey(env, t->comm, t->device_comm, t->be);
    if (t->comm->rank) return true;
    char *folder = run_checkpoint_folder(t->config);
    bool ok = checkpoint_room_look(&env->room, &t->learner.nets, folder, err);
    environment_print(env, stdout);
    free(folder);
    return ok;
}

static bool open_preview(struct Trainer *t, struct Error *err) {
    return !preview_has_part(&t->grid) ||
           preview_open(&t->preview, t->config, t->dataset, t->comm->rank == 0, err);
}

static bool write_environment(struct Trainer *t, struct Error *err) {
    if (t->comm->rank) return true;
    char *path = xprintf("%s/environment.json", t->config->out);
    bool ok = environment_save(&t->environment, path, err);
    free(path);
    return ok;
}

static bool load_state(struct Trainer *t, struct Error *err) {
    char *path;
    if (!run_resume_path(t->config, t->comm, &path, err)) return false;
    bool ok = run_init_weights(&t->learner.nets, t->comm, err);
    if (ok && path) ok = run_state_load(&t->state, &t->learner.nets, path, err);
    if (ok && path && t->comm->rank == 0)
        printf("resumed %s at iteration %lld\n", path, (long long)t->state.iteration);
    free(path);
    return ok;
}

/* A phase of its own, because it is collective: every rank must have loaded its share before. */
static bool gather_weights(struct Trainer *t, struct Error *err) {
    (void)err;
    learner_weights_loaded(&t->learner);
    return true;
}

static bool open_saver(struct Trainer *t, struct Error *err) {
    return run_saver_open(&t->saver, &t->learner.nets, t->comm, &t->grid, err);
}

/* KD trains on what the teacher makes of the data's prompts, not on the data. */
static bool make_pairs(struct Trainer *t, struct Error *err) {
    if (t->config->train.stage != STAGE_KD) return true;
    return kd_pairs_make(&t->learner, t->dataset, t->comm, t->watchdog, err);
}

static bool open_pairs(struct Trainer *t, struct Error *err) {
    if (t->config->train.stage != STAGE_KD) return true;
    dataset_close(t->dataset);
    t->dataset = kd_pairs_open(t->config, t->comm, err);
    return t->dataset;
}

/* The loader that feeds the run, and the metrics that it writes. */
static bool open_streams(struct Trainer *t, struct Error *err) {
    const struct Config *config = t->config;
    struct LoaderPlan plan = {.seed = (uint64_t)config->train.seed,
                              .first_iteration = t->state.iteration,
                              .global_batch = config->train.global_batch,
                              .first_in_batch = t->first_in_batch,
                              .n_local = t->n_local,
                              .text_len = config->model.text_len,
                              .n_prefetch = config->data.prefetch};
    t->loader = loader_open(t->dataset, &plan, err);
    return t->loader &&
           (t->comm->rank || metrics_open(&t->metrics, config, t->state.iteration, err));
}

bool trainer_open(struct Trainer *t, const struct Config *config, struct Comm *comm, int *exit_code) {
    bool (*const phases[])(struct Trainer *, struct Error *) = {
        start_watchdog, take_place, open_device, join_devices, /* the ranks and their devices */
        open_data, make_folders, open_preview,                 /* what is read and written */
        allocate, survey, load_state, gather_weights,          /* memory and weights */
        write_resolved_config, write_environment,              /* from here on the folder is ours */
        make_pairs, open_pairs, open_streams, open_saver};
    *t = (struct Trainer){.config = config, .comm = comm};
    run_signals_install();
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        struct Error err = {0};
        watchdog_enter(t->watchdog, PHASE_OPEN);
        bool ok = phases[i](t, &err) && run_signals_none_early(&err);
        watchdog_enter(t->watchdog, PHASE_REDUCE); /* ranks wait for each other */
        if (!comm_agree(comm, ok, &err, exit_code)) return false;
    }
    return true;
}

void trainer_close(struct Trainer *t) {
    watchdog_enter(t->watchdog, PHASE_CLOSE);
    run_saver_close(t->saver);
    loader_close(t->loader);
    metrics_close(&t->metrics);
    preview_close(&t->preview);
    learner_free(&t->learner);
    environment_free(&t->environment);
    dataset_close(t->dataset);
    parallel_close(&t->parallel);
    if (t->device_comm && t->device_comm != t->comm) t->device_comm->destroy(t->device_comm);
    if (t->be) t->be->destroy(t->be);
    watchdog_stop(t->watchdog);
}
