#include "train/kd_pairs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dataset_writer.h"
#include "model/sampler.h"
#include "train/draws.h"

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

/* Everything that making one batch of pairs needs. */
struct PairMaker {
    const struct Networks *nets;
    struct Dataset *prompts;
    int64_t capacity; /* pairs per batch */
    struct Arena arena;
    struct WanTape *tape;
    float *x, *text_f32;     /* device */
    Act *text, *neg_text;    /* device */
    float *host_x, *host_text;
};

static void sample_batch(struct PairMaker *m, const struct Networks *nets, struct Arena *arena,
                         int64_t batch) {
    const struct Config *config = nets->config;
    struct Wan teacher = networks_wan(nets, ROLE_TEACHER, VIEW_FROZEN);
    struct TeacherSampler how = {.steps = config->sampler.steps,
                                 .shift = config->sampler.shift,
                                 .guidance = config->kd.guidance,
                                 .skip_layers = &config->kd.skip_layers};
    teacher_sample(&teacher, how, batch, m->x, m->text, m->neg_text, arena, m->tape);
}

/* The sampler's peak, from a run over the plan backend. */
static int64_t sampler_peak(struct PairMaker *m) {
    struct Backend *plan = backend_plan_create(m->nets->be->act_dtype);
    struct Networks nets;
    struct Arena arena;
    networks_init(&nets, m->nets->config, plan, m->nets->plan, m->nets->geometry.video);
    arena_init_measuring(&arena, plan);
    sample_batch(m, &nets, &arena, m->capacity);
    networks_free(&nets);
    plan->destroy(plan);
    return arena.peak;
}

static bool maker_init(struct PairMaker *m, const struct Networks *nets, struct Dataset *prompts,
                       struct Error *err) {
    const struct Backend *be = nets->be;
    int64_t n_text = networks_text_elems(nets), n_video = networks_latent_elems(nets);
    int64_t b = nets->config->train.micro_batch;
    *m = (struct PairMaker){.nets = nets, .prompts = prompts, .capacity = b};
    m->tape = xcalloc(sizeof *m->tape);
    arena_init(&m->arena, be, sampler_peak(m));
    m->x = be->memory_alloc(be, b * n_video * (int64_t)sizeof(float));
    m->text_f32 = be->memory_alloc(be, b * n_text * (int64_t)sizeof(float));
    m->text = be->memory_alloc(be, b * n_text * dtype_bytes(be->act_dtype));
    m->neg_text = be->memory_alloc(be, b * n_text * dtype_bytes(be->act_dtype));
    m->host_x = xmalloc((size_t)(b * n_video) * sizeof(float));
    m->host_text = xmalloc((size_t)(b * n_text) * sizeof(float));
    if (!dataset_read_negative(prompts, nets->config->model.text_len, m->host_text, err)) return false;
    for (int64_t i = 0; i < b; i++)
        be->upload(be, m->text_f32 + i * n_text, m->host_text, n_text * (int64_t)sizeof(float));
    be->act_from_f32(be, m->neg_text, m->text_f32, b * n_text);
    return true;
}

static void maker_free(struct PairMaker *m) {
    const struct Backend *be = m->nets->be;
    void *device[] = {m->x, m->text_f32, m->text, m->neg_text};
    for (int i = 0; i < 4; i++) be->memory_free(be, device[i]);
    arena_free(&m->arena);
    free(m->tape);
    free(m->host_x);
    free(m->host_text);
}

/* Rows up to the last that is not zero: what was there before padding. */
static int64_t text_rows(const float *text, int64_t text_len, int64_t text_dim) {
    int64_t n = text_len * text_dim;
    while (n > 0 && text[n - 1] == 0.0f) n--;
    return (n + text_dim - 1) / text_dim;
}

static bool append_pair(struct PairMaker *m, struct DatasetWriter *writer, int64_t pair,
                        const float *video, const float *text, struct Error *err) {
    const struct ModelConfig *c = &m->nets->config->model;
    char *prompt;
    if (!dataset_read_prompt(m->prompts, pair % dataset_info(m->prompts)->n_samples, &prompt, err))
        return false;
    bool ok = dataset_writer_append(writer, prompt, video, text,
                                    text_rows(text, c->text_len, c->text_dim), err);
    free(prompt);
    return ok;
}

static bool make_batch(struct PairMaker *m, struct DatasetWriter *writer, int64_t first, int64_t n,
                       struct Error *err) {
    const struct Backend *be = m->nets->be;
    int64_t n_text = networks_text_elems(m->nets), n_video = networks_latent_elems(m->nets);
    int64_t n_samples = dataset_info(m->prompts)->n_samples;
    for (int64_t b = 0; b < n; b++) {
        if (!dataset_read_text(m->prompts, (first + b) % n_samples, m->nets->config->model.text_len,
                               m->host_text + b * n_text, err))
            return false;
        kd_pair_noise(m->nets, first + b, m->x + b * n_video);
    }
    be->upload(be, m->text_f32, m->host_text, n * n_text * (int64_t)sizeof(float));
    be->act_from_f32(be, m->text, m->text_f32, n * n_text);
    sample_batch(m, m->nets, &m->arena, n);
    be->download(be, m->host_x, m->x, n * n_video * (int64_t)sizeof(float));
    for (int64_t b = 0; b < n; b++)
        if (!append_pair(m, writer, first + b, m->host_x + b * n_video, m->host_text + b * n_text, err))
            return false;
    return true;
}

static struct DatasetWriter *part_writer(struct PairMaker *m, const char *path, struct Error *err) {
    const struct DatasetInfo *info = dataset_info(m->prompts);
    const struct ModelConfig *c = &m->nets->config->model;
    if (!dataset_read_negative(m->prompts, c->text_len, m->host_text, err)) return NULL;
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
                               .negative_rows = m->host_text,
                               .n_negative_rows = text_rows(m->host_text, c->text_len, c->text_dim),
                               .zstd_level = 1};
    return dataset_writer_open(path, &spec, err);
}

static bool make_part(const struct Networks *nets, struct Dataset *prompts, const char *path,
                      int64_t first, int64_t n, struct Error *err) {
    struct PairMaker maker;
    struct DatasetWriter *writer = NULL;
    bool ok = maker_init(&maker, nets, prompts, err);
    if (ok) writer = part_writer(&maker, path, err);
    ok = ok && writer;
    for (int64_t at = 0; ok && at < n; at += maker.capacity)
        ok = make_batch(&maker, writer, first + at, n - at < maker.capacity ? n - at : maker.capacity,
                        err);
    if (ok)
        ok = dataset_writer_finish(writer, err);
    else
        dataset_writer_discard(writer);
    maker_free(&maker);
    return ok;
}

bool kd_pairs_open(const struct Networks *nets, struct Dataset *prompts, struct Comm *comm,
                   struct Dataset **pairs, struct Error *err) {
    const struct Config *config = nets->config;
    char *folder = pairs_folder(config), **paths = xcalloc((size_t)comm->n_ranks * sizeof *paths);
    struct stat info;
    bool ok = mkdir(folder, 0777) == 0 || errno == EEXIST ||
              error_set(err, "%s: cannot make this folder: %s", folder, strerror(errno));
    for (int rank = 0; rank < comm->n_ranks; rank++) {
        int64_t first = part_start(config, comm, rank), n = part_start(config, comm, rank + 1) - first;
        paths[rank] = part_path(config, first, n);
        if (ok && rank == comm->rank && stat(paths[rank], &info) != 0) {
            if (comm->rank == 0)
                printf("the teacher makes %lld pairs\n", (long long)config->kd.pairs);
            ok = make_part(nets, prompts, paths[rank], first, n, err);
        }
    }
    /* nobody opens a part before all are there, or have failed */
    double failed = !ok;
    comm->sum_f64(comm, &failed, 1);
    if (ok && failed > 0.0) ok = error_set(err, "%s: another rank could not make its part", folder);
    if (ok) {
        *pairs = dataset_open(paths, comm->n_ranks, err);
        ok = *pairs != NULL;
    }
    for (int rank = 0; rank < comm->n_ranks; rank++) free(paths[rank]);
    free(paths);
    free(folder);
    return ok;
}
