/* Each rank makes a contiguous part of the pairs and writes it as a dataset; all ranks then open
 * all parts. */
#include "train/kd_pairs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dataset_writer.h"
#include "train/draws.h"
#include "train/prompt_set.h"
#include "train/run_signals.h"
#include "train/sampling.h"

void kd_pair_noise(const struct Networks *nets, int64_t pair, float *device) {
    nets->be->normal_fill(nets->be, device, (uint64_t)nets->config->train.seed,
                          draw_stream(0, DRAW_SAMPLER_X1), pair, 1, networks_latent_elems(nets));
}

static char *pairs_folder(const struct Config *config) {
    return xprintf("%s/pairs", config->out);
}

/* Tells pairs of one teacher, seed and sampler from those of another: FNV-1a of what they depend on. */
static uint32_t fingerprint(const struct Config *config) {
    const struct SamplerConfig *s = &config->sampler;
    char *text = xprintf("%s %lld %lld %.17g %.17g", config->init.teacher,
                         (long long)config->train.seed, (long long)s->steps, s->shift,
                         config->kd.guidance);
    uint32_t hash = 2166136261u;
    for (const char *c = text; *c; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
    for (int i = 0; i < config->kd.skip_layers.n; i++)
        hash = (hash ^ (uint32_t)config->kd.skip_layers.items[i]) * 16777619u;
    free(text);
    return hash;
}

static char *part_path(const struct Config *config, int64_t first, int64_t n) {
    char *folder = pairs_folder(config);
    char *path = xprintf("%s/part-%08x-%lld-%lld.h5", folder, fingerprint(config), (long long)first,
                         (long long)n);
    free(folder);
    return path;
}

static int64_t part_start(const struct Config *config, const struct Comm *comm, int64_t rank) {
    return config->kd.pairs * rank / comm->n_ranks;
}

struct Sampler kd_pair_sampler(const struct Networks *nets) {
    struct Sampler sampler = sampler_init(nets, ROLE_TEACHER, false);
    sampler.seed = (uint64_t)nets->config->train.seed;
    sampler.teacher.guidance = nets->config->kd.guidance;
    sampler.teacher.skip_layers = &nets->config->kd.skip_layers;
    return sampler;
}

int64_t kd_pairs_arena_bytes(const struct Networks *planned) {
    struct Sampler sampler = kd_pair_sampler(planned);
    return sampler_arena_bytes(&sampler, planned->config->train.micro_batch);
}

static struct DatasetWriter *part_writer(const struct Networks *nets, struct Dataset *prompts,
                                         const float *negative, const char *path,
                                         struct Error *err) {
    const struct DatasetInfo *info = dataset_info(prompts);
    const struct ModelConfig *c = &nets->config->model;
    struct DatasetSpec spec = {.kind = info->kind,
                               .channels = info->channels,
                               .frames = info->frames,
                               .height = info->height,
                               .width = info->width,
                               .video_element = DTYPE_F32,
                               .text_element = info->text_element,
                               .text_dim = info->text_dim,
                               .normalised = true,
                               .fps = info->fps,
                               .video_encoder = info->video_encoder,
                               .text_encoder = info->text_encoder,
                               .negative_prompt = info->negative_prompt,
                               .negative_rows = negative,
                               .n_negative_rows = prompt_text_rows(negative, c->text_len, c->text_dim),
                               .zstd_level = 1};
    return dataset_writer_open(path, &spec, err);
}

/* This rank's part of the pairs, while it is made. */
struct Part {
    struct Learner *learner;
    struct Sampler sampler;
    struct Dataset *prompts;
    struct DatasetWriter *writer; /* NULL: it was there already */
    float *negative;              /* the negative prompt */
    float *clips;                 /* of a batch */
    int64_t at, end;              /* pairs to make */
};

static bool folder_there(const struct Config *config, struct Error *err) {
    char *folder = pairs_folder(config);
    bool ok = mkdir(folder, 0777) == 0 || errno == EEXIST ||
              error_set(err, "%s: cannot make this folder: %s", folder, strerror(errno));
    free(folder);
    return ok;
}

static bool part_open(struct Part *p, struct Learner *l, struct Dataset *prompts,
                      const struct Comm *comm, struct Error *err) {
    const struct Networks *nets = &l->nets;
    const struct Config *config = nets->config;
    int64_t first = part_start(config, comm, comm->rank);
    int64_t n = part_start(config, comm, comm->rank + 1) - first;
    int64_t n_clips = config->train.micro_batch * networks_latent_elems(nets);
    *p = (struct Part){.learner = l,
                       .sampler = kd_pair_sampler(nets),
                       .prompts = prompts,
                       .negative = xcalloc((size_t)networks_text_elems(nets) * sizeof *p->negative),
                       .clips = xmalloc((size_t)n_clips * sizeof *p->clips)};
    if (!folder_there(config, err)) return false;
    struct stat info;
    char *path = part_path(config, first, n);
    bool there = stat(path, &info) == 0;
    if (!there && dataset_read_negative(prompts, config->model.text_len, p->negative, err)) {
        if (comm->rank == 0) printf("the teacher makes %lld pairs\n", (long long)config->kd.pairs);
        p->at = first;
        p->end = first + n;
        p->writer = part_writer(nets, prompts, p->negative, path, err);
    }
    free(path);
    return there || p->writer;
}

/* The part stays if it is complete, whatever became of other ranks' parts. */
static bool part_close(struct Part *p, bool ok, struct Error *err) {
    if (p->writer && ok && p->at == p->end)
        ok = dataset_writer_finish(p->writer, err);
    else
        dataset_writer_discard(p->writer);
    free(p->negative);
    free(p->clips);
    return ok;
}

/* The prompts of the next batch, which does not cross the end of the data; n = 0: none are left. */
static bool next_prompts(const struct Part *p, struct PromptSet *set, struct Error *err) {
    const struct Config *config = p->learner->config;
    int64_t n_prompts = dataset_info(p->prompts)->n_samples, prompt = p->at % n_prompts;
    int64_t n = p->end - p->at;
    if (n > config->train.micro_batch) n = config->train.micro_batch;
    if (n > n_prompts - prompt) n = n_prompts - prompt;
    return n == 0 || prompt_set_of_samples(set, p->prompts, prompt, n, config->model.text_len, err);
}

/* Samples and appends the pairs whose prompts `set` holds. */
static bool append_pairs(struct Part *p, const struct PromptSet *set, struct Error *err) {
    int64_t n_text = set->text_len * set->text_dim;
    int64_t n_video = networks_latent_elems(p->sampler.nets);
    sampler_run(&p->sampler,
                (struct SampleSet){.first = p->at,
                                   .n = set->n,
                                   .text = set->text,
                                   .neg_text = set->neg_text,
                                   .clips = p->clips},
                set->n, &p->learner->arena);
    p->at += set->n;
    for (int64_t i = 0; i < set->n; i++) {
        const float *text = set->text + i * n_text;
        if (!dataset_writer_append(p->writer, set->prompts[i], p->clips + i * n_video, text,
                                   prompt_text_rows(text, set->text_len, set->text_dim), err))
            return false;
    }
    return true;
}

/* If the teacher is in shares, no rank can run it alone.  A rank that has no pair left to make then
 * runs it for the others, and drops the result. */
static void help_others(struct Part *p) {
    if (p->sampler.nets->weights[ROLE_TEACHER].share.n_shares == 1) return;
    sampler_run(&p->sampler,
                (struct SampleSet){
                    .n = 1, .text = p->negative, .neg_text = p->negative, .clips = p->clips},
                1, &p->learner->arena);
}

/* Summed over ranks before each batch. */
struct Round {
    double failed, busy; /* numbers of ranks */
};

/* All ranks go from batch to batch together, until none has any pair left or one has failed. */
static bool make_pairs(struct Part *p, bool ok, struct Comm *comm, struct Watchdog *watchdog,
                       struct Error *err) {
    for (bool go = true; go;) {
        struct PromptSet set = {0};
        ok = ok && next_prompts(p, &set, err) && run_signals_none_early(err);
        struct Round round = {.failed = !ok, .busy = set.n > 0};
        watchdog_enter(watchdog, PHASE_REDUCE);
        comm->sum_f64(comm, (double *)&round, 2);
        watchdog_enter(watchdog, PHASE_PAIRS);
        go = round.failed == 0.0 && round.busy > 0.0;
        if (go) learner_begin_pairs(p->learner);
        if (go && set.n)
            ok = append_pairs(p, &set, err);
        else if (go)
            help_others(p);
        prompt_set_free(&set);
    }
    return ok;
}

bool kd_pairs_make(struct Learner *learner, struct Dataset *prompts, struct Comm *comm,
                   struct Watchdog *watchdog, struct Error *err) {
    struct Part part;
    bool ok = part_open(&part, learner, prompts, comm, err);
    ok = make_pairs(&part, ok, comm, watchdog, err);
    return part_close(&part, ok, err);
}

struct Dataset *kd_pairs_open(const struct Config *config, const struct Comm *comm,
                              struct Error *err) {
    char **paths = xcalloc((size_t)comm->n_ranks * sizeof *paths);
    for (int rank = 0; rank < comm->n_ranks; rank++) {
        int64_t first = part_start(config, comm, rank);
        paths[rank] = part_path(config, first, part_start(config, comm, rank + 1) - first);
    }
    struct Dataset *pairs = dataset_open(paths, comm->n_ranks, err);
    for (int rank = 0; rank < comm->n_ranks; rank++) free(paths[rank]);
    free(paths);
    return pairs;
}
