/* Prompts are read once; a preview then is a run of the sampler and a contact sheet. */
#include "train/preview.h"

#include <stdlib.h>

#include "train/clip_sheet.h"
#include "train/folders.h"

static int64_t clips_wanted(const struct PreviewConfig *config) {
    return config->prompts.n ? config->prompts.n : config->count;
}

/* No more samples at a time than a step has. */
static int64_t preview_batch(const struct Config *config) {
    int64_t n = clips_wanted(&config->preview);
    return n < config->train.micro_batch ? n : config->train.micro_batch;
}

static struct Sampler preview_sampler(const struct Networks *nets) {
    struct Sampler sampler = sampler_init(nets, nets->plan.main, true);
    sampler.together = true;
    return sampler;
}

bool preview_has_part(const struct RankGrid *grid) {
    return grid->n_shares > 1 || grid->data_rank == 0;
}

int64_t preview_arena_bytes(const struct Networks *planned) {
    struct Sampler sampler = preview_sampler(planned);
    if (!planned->config->preview.every) return 0;
    return sampler_arena_bytes(&sampler, preview_batch(planned->config));
}

static bool read_prompts(struct PromptSet *prompts, const struct Config *config,
                         struct Dataset *dataset, struct Error *err) {
    const struct StringList *texts = &config->preview.prompts;
    int64_t n = clips_wanted(&config->preview), n_samples = dataset_info(dataset)->n_samples;
    int64_t text_len = config->model.text_len;
    if (!texts->n)
        return prompt_set_of_samples(prompts, dataset, 0, n < n_samples ? n : n_samples, text_len,
                                     err);
    return prompt_set_of_texts(prompts, dataset, (const char *const *)texts->items, n, text_len,
                               err) ||
           error_prefix(err, "preview.prompts");
}

bool preview_open(struct Preview *preview, const struct Config *config, struct Dataset *dataset,
                  bool writes, struct Error *err) {
    *preview = (struct Preview){0};
    if (!config->preview.every) return true;
    preview->info = *dataset_info(dataset);
    preview->info.video_encoder = preview->info.text_encoder = preview->info.negative_prompt = NULL;
    preview->folder = xprintf("%s/previews", config->out);
    if (!read_prompts(&preview->prompts, config, dataset, err)) return false;
    int64_t n_elems = preview->prompts.n * dataset_video_elems(dataset);
    preview->clips = xmalloc((size_t)n_elems * sizeof *preview->clips);
    return !writes || folder_make(preview->folder, err);
}

void preview_close(struct Preview *preview) {
    prompt_set_free(&preview->prompts);
    free(preview->clips);
    free(preview->folder);
    *preview = (struct Preview){0};
}

bool preview_due(const struct Config *config, int64_t iteration) {
    int64_t every = config->preview.every;
    return every && (iteration % every == 0 || iteration == config->train.iterations);
}

static bool write_sheet(const struct Preview *preview, const struct Networks *nets,
                        int64_t iteration, struct Error *err) {
    const char *stage = config_enum_name("train.stage", (int)nets->config->train.stage);
    char *stem = xprintf("%s/step-%08lld", preview->folder, (long long)iteration);
    char *title = xprintf("%s, iteration %lld", stage, (long long)iteration);
    struct ClipColumn column = {.clips = preview->clips};
    struct ClipSheet sheet = {.title = title,
                              .info = &preview->info,
                              .n_rows = (int)preview->prompts.n,
                              .n_columns = 1,
                              .prompts = (const char *const *)preview->prompts.prompts,
                              .columns = &column};
    bool ok = clip_sheet_write(&sheet, stem, err);
    free(title);
    free(stem);
    return ok;
}

bool preview_write(const struct Preview *preview, const struct Networks *nets, struct Arena *arena,
                   int64_t iteration, bool write, struct Error *err) {
    struct Sampler sampler = preview_sampler(nets);
    struct SampleSet set = {.n = preview->prompts.n,
                            .text = preview->prompts.text,
                            .neg_text = preview->prompts.neg_text,
                            .clips = preview->clips};
    sampler_run(&sampler, set, preview_batch(nets->config), arena);
    return !write || write_sheet(preview, nets, iteration, err);
}
