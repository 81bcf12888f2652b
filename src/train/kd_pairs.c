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

/* The sampler's arena, from a run over the plan backend. */
static int64_t pair_arena_bytes(const struct Networks *nets, int64_t batch) {
    struct Backend *plan = backend_plan_create(nets->be->act_dtype);
    struct Networks planned;
    networks_init(&planned, nets->config, plan, nets->plan, nets->geometry.video);
    struct Sampler sampler = kd_pair_sampler(&planned);
    int64_t n_bytes = sampler_arena_bytes(&sampler, batch);
    networks_free(&planned);
    plan->destroy(plan);
    return n_bytes;
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

/* Samples and appends the pairs first .. first + set->n - 1, whose prompts `set` holds. */
static bool append_pairs(const struct Sampler *sampler, struct Arena *arena,
                         const struct PromptSet *set, int64_t first, float *clips,
                         struct DatasetWriter *writer, struct Error *err) {
    int64_t n_text = set->text_len * set->text_dim, n_video = networks_latent_elems(sampler->nets);
    sampler_run(sampler,
                (struct SampleSet){.first = first,
                                   .n = set->n,
                                   .text = set->text,
                                   .neg_text = set->neg_text,
                                   .clips = clips},
                set->n, arena);
    for (int64_t i = 0; i < set->n; i++) {
        const float *text = set->text + i * n_text;
        if (!dataset_writer_append(writer, set->prompts[i], clips + i * n_video, text,
                                   prompt_text_rows(text, set->text_len, set->text_dim), err))
            return false;
    }
    return true;
}

/* Makes the pairs first .. first + n - 1, a micro-batch at a time. */
static bool write_pairs(const struct Networks *nets, struct Dataset *prompts, int64_t first, int64_t n,
                        struct DatasetWriter *writer, struct Watchdog *watchdog, struct Error *err) {
    struct Sampler sampler = kd_pair_sampler(nets);
    struct Arena arena;
    int64_t batch = nets->config->train.micro_batch, n_prompts = dataset_info(prompts)->n_samples;
    float *clips = xmalloc((size_t)(batch * networks_latent_elems(nets)) * sizeof *clips);
    bool ok = true;
    arena_init(&arena, nets->be, pair_arena_bytes(nets, batch));
    for (int64_t at = first; ok && at < first + n;) {
        /* a run of prompts that does not go over the end of the data */
        int64_t prompt = at % n_prompts, run = first + n - at;
        if (run > batch) run = batch;
        if (run > n_prompts - prompt) run = n_prompts - prompt;
        struct PromptSet set = {0};
        ok = prompt_set_of_samples(&set, prompts, prompt, run, nets->config->model.text_len, err) &&
             append_pairs(&sampler, &arena, &set, at, clips, writer, err) &&
             run_signals_none_early(err);
        prompt_set_free(&set);
        watchdog_alive(watchdog);
        at += run;
    }
    arena_free(&arena);
    free(clips);
    return ok;
}

static bool make_part(const struct Networks *nets, struct Dataset *prompts, const char *path,
                      int64_t first, int64_t n, struct Watchdog *watchdog, struct Error *err) {
    struct DatasetWriter *writer = NULL;
    float *negative = xmalloc((size_t)networks_text_elems(nets) * sizeof *negative);
    bool ok = dataset_read_negative(prompts, nets->config->model.text_len, negative, err);
    if (ok) writer = part_writer(nets, prompts, negative, path, err);
    ok = ok && writer && write_pairs(nets, prompts, first, n, writer, watchdog, err);
    if (ok)
        ok = dataset_writer_finish(writer, err);
    else
        dataset_writer_discard(writer);
    free(negative);
    return ok;
}

bool kd_pairs_make(const struct Networks *nets, struct Dataset *prompts, const struct Comm *comm,
                   struct Watchdog *watchdog, struct Error *err) {
    const struct Config *config = nets->config;
    int64_t first = part_start(config, comm, comm->rank);
    int64_t n = part_start(config, comm, comm->rank + 1) - first;
    char *folder = pairs_folder(config), *path = part_path(config, first, n);
    struct stat info;
    bool ok = mkdir(folder, 0777) == 0 || errno == EEXIST ||
              error_set(err, "%s: cannot make this folder: %s", folder, strerror(errno));
    if (ok && stat(path, &info) != 0) {
        if (comm->rank == 0) printf("the teacher makes %lld pairs\n", (long long)config->kd.pairs);
        ok = make_part(nets, prompts, path, first, n, watchdog, err);
    }
    free(path);
    free(folder);
    return ok;
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
