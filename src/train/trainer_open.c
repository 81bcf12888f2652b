/* Setting a run up, one checked step after the other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/atomic_file.h"
#include "train/data_fit.h"
#include "train/folders.h"
#include "train/kd_pairs.h"
#include "train/comm_nccl.h"
#include "train/trainer.h"

static bool open_device(struct Trainer *t, struct Error *err) {
    return backend_open(config_device(t->config), t->comm->local_rank, &t->be, err);
}

/* Once every rank has its device: this one waits for all of them. */
static bool join_devices(struct Trainer *t, struct Error *err) {
    (void)err;
    t->device_comm = comm_for_backend(t->comm, t->be);
    return true;
}

/* This rank's samples of every global batch. */
static bool share_batch(struct Trainer *t, struct Error *err) {
    int64_t batch = t->config->train.global_batch, rank = t->comm->rank, n = t->comm->n_ranks;
    if (batch < n)
        return error_set(err, "train.global_batch is %lld, but there are %lld ranks, each of which "
                              "needs a sample", (long long)batch, (long long)n);
    t->first_in_batch = batch_share_start(t->config, n, rank);
    t->n_local = batch_share_start(t->config, n, rank + 1) - t->first_in_batch;
    return true;
}

static bool open_data(struct Trainer *t, struct Error *err) {
    const struct StringList *files = &t->config->data.files;
    t->dataset = dataset_open(files->items, files->n, err);
    return t->dataset && data_fits(t->config, t->dataset, files->items[0], err) && share_batch(t, err);
}

static bool make_folders(struct Trainer *t, struct Error *err) {
    if (t->comm->rank) return true;
    char *checkpoints = run_checkpoint_folder(t->config);
    bool ok = folder_make(checkpoints, err);
    free(checkpoints);
    return ok;
}

/* Only once the run is known to go on here: a refused one must not leave its mark on another's folder. */
static bool write_resolved_config(struct Trainer *t, struct Error *err) {
    if (t->comm->rank) return true;
    char *path = xprintf("%s/config.yaml", t->config->out), *yaml = config_to_yaml(t->config);
    bool ok = atomic_file_write(path, yaml, strlen(yaml), err);
    free(yaml);
    free(path);
    return ok;
}

/* Told before anything is loaded, below the table that says where it goes. */
static bool fits(struct Trainer *t, struct Error *err) {
    int64_t there = t->be->memory_available(t->be);
    return t->memory_bytes <= there ||
           error_set(err, "the run does not fit the memory of its device (%s): expected at most %.1f MB, "
                          "got %.1f MB; a smaller train.micro_batch or train.recompute=full needs less",
                     t->be->name, 1e-6 * (double)there, 1e-6 * (double)t->memory_bytes);
}

static bool allocate(struct Trainer *t, struct Error *err) {
    const struct Config *config = t->config;
    struct VideoShape video = data_video_shape(dataset_info(t->dataset));
    struct MemoryPlan plan = memory_plan_make(config, video, t->n_local, t->be->act_dtype);
    int64_t capacity = t->n_local < config->train.micro_batch ? t->n_local : config->train.micro_batch;
    t->memory_bytes = memory_plan_total(&plan);
    if (t->comm->rank == 0) memory_plan_print(&plan, stdout);
    if (!fits(t, err)) return false;
    int64_t n_text = config->model.text_len * config->model.text_dim;
    float *negative = xmalloc((size_t)n_text * sizeof *negative);
    bool ok = dataset_read_negative(t->dataset, config->model.text_len, negative, err);
    if (ok)
        learner_init(&t->learner, config, t->be, t->device_comm, video, capacity, negative, plan.step);
    free(negative);
    return ok;
}

static bool open_preview(struct Trainer *t, struct Error *err) {
    return t->comm->rank || preview_open(&t->preview, t->config, t->dataset, err);
}

static bool load_state(struct Trainer *t, struct Error *err) {
    char *path;
    /* rank 0 has the verdict on which checkpoint is valid, for reading them all takes time */
    char chosen[4096] = "";
    bool ok = true;
    if (t->comm->rank == 0) {
        ok = run_resume_path(t->config, &path, err);
        if (ok && path) snprintf(chosen, sizeof chosen, "%s", path);
        if (ok) free(path);
    }
    t->comm->broadcast(t->comm, chosen, sizeof chosen, 0);
    ok = ok && run_init_weights(&t->learner.nets, t->comm->rank != 0, err);
    if (ok && *chosen) ok = run_state_load(&t->state, &t->learner.nets, chosen, err);
    if (ok && *chosen && t->comm->rank == 0)
        printf("resumed %s at iteration %lld\n", chosen, (long long)t->state.iteration);
    return ok;
}

/* KD trains on what the teacher makes of the data's prompts, not on the data. */
static bool make_pairs(struct Trainer *t, struct Error *err) {
    return t->config->train.stage != STAGE_KD ||
           kd_pairs_make(&t->learner.nets, t->dataset, t->comm, err);
}

static bool open_pairs(struct Trainer *t, struct Error *err) {
    if (t->config->train.stage != STAGE_KD) return true;
    dataset_close(t->dataset);
    t->dataset = kd_pairs_open(t->config, t->comm, err);
    return t->dataset;
}

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
        open_device, join_devices,          open_data,  make_folders, open_preview, allocate,
        load_state,  write_resolved_config, make_pairs, open_pairs,   open_streams};
    *t = (struct Trainer){.config = config, .comm = comm};
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        struct Error err = {0};
        bool ok = phases[i](t, &err);
        if (!comm_agree(comm, ok, &err, exit_code)) return false;
    }
    return true;
}

void trainer_close(struct Trainer *t) {
    loader_close(t->loader);
    metrics_close(&t->metrics);
    preview_close(&t->preview);
    learner_free(&t->learner);
    dataset_close(t->dataset);
    if (t->device_comm && t->device_comm != t->comm) t->device_comm->destroy(t->device_comm);
    if (t->be) t->be->destroy(t->be);
}
